"""A local server that speaks the Hugging Face hub's protocol, as far as models are fetched by it.

Metadata at ``/api/models/OWNER/REPO``, files at ``/OWNER/REPO/resolve/COMMIT/PATH``, which
redirects to another address, as the hub does, where the bytes are and no token belongs. It cuts,
ignores and refuses as it is told.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import urllib.parse
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class HubServer:
    """Serves what `publish` was given while the ``with`` lasts."""

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, Any]] = {}
        self.content: dict[str, bytes] = {}
        """By path on the second server."""
        self.asked: list[tuple[str, str, dict[str, str]]] = []
        """Method, path and headers of every request, of both servers."""
        self.token = ""
        """Wanted by repositories in `private` and `gated`."""
        self.private: set[str] = set()
        self.gated: set[str] = set()
        self.statuses: dict[str, tuple[int, dict[str, str]]] = {}
        """Answers for these paths instead of the right ones."""
        self.cuts: list[int] = []
        """Each of the next downloads is cut off after so many bytes of its answer."""
        self.ranges = True
        """False: ranges are ignored."""
        self.shift = 0
        """Answers to ranges begin so many bytes later than they were asked for."""
        self.stalled = threading.Event()
        """A download has come to `stall_at`."""
        self.stall_at: int | None = None
        self.go_on = threading.Event()
        self.starts: Counter[str] = Counter()
        """Downloads begun, by path."""

    def publish(self, repository: str, files: dict[str, bytes], *, licence: str = "mit") -> None:
        """Make a repository, or replace it."""
        siblings = []
        for name, data in files.items():
            self.content[f"/{repository}/resolve/{COMMIT}/{name}"] = data
            digest = hashlib.sha256(data).hexdigest()
            large = {"lfs": {"sha256": digest, "size": len(data), "pointerSize": 134}}
            blob = {"rfilename": name, "size": len(data), "blobId": digest[:40]}
            siblings.append(blob | (large if name.endswith(".gguf") else {}))
        self.repositories[repository] = {
            "id": repository,
            "modelId": repository,
            "sha": COMMIT,
            "cardData": {"license": licence},
            "siblings": siblings,
        }

    def __enter__(self) -> Self:
        self._front = self._server(self._front_answer)
        self._back = self._server(self._back_answer)
        self.url = f"http://127.0.0.1:{self._front.server_port}"
        # Another host for whoever compares hosts.
        self.files_url = f"http://localhost:{self._back.server_port}"
        self._threads = [
            threading.Thread(target=server.serve_forever, args=(0.01,))
            for server in (self._front, self._back)
        ]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *details: object) -> None:
        self.go_on.set()
        for server in (self._front, self._back):
            server.shutdown()
            server.server_close()
        for thread in self._threads:
            thread.join()

    def downloads(self) -> list[dict[str, str]]:
        """The headers of all requests for bytes."""
        return [headers for method, path, headers in self.asked if path.startswith("/bytes/")]

    def _server(self, answer: Any) -> ThreadingHTTPServer:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                headers = {k.lower(): v for k, v in self.headers.items()}
                outer.asked.append((self.command, self.path, headers))
                target = urllib.parse.urlsplit(self.path)
                answer(self, urllib.parse.unquote(target.path), headers)

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        return server

    def _front_answer(self, to: BaseHTTPRequestHandler, path: str, headers: dict[str, str]) -> None:
        if path in self.statuses:
            status, more = self.statuses[path]
            return _send(to, status, b"{}", more)
        repository = re.sub(r"^/api/models/|/resolve/.*|/revision/.*", "", path).strip("/")
        known = headers.get("authorization") == f"Bearer {self.token}" if self.token else False
        if "authorization" in headers and not known:
            said = {"X-Error-Message": "Invalid credentials in Authorization header"}
            return _send(to, 401, b"{}", said)
        if repository not in self.repositories or (repository in self.private and not known):
            return _send(to, 401, b"{}", {"X-Error-Code": "RepoNotFound"})
        if path.startswith("/api/models/"):
            return _send(to, 200, json.dumps(self.repositories[repository]).encode(), {})
        if repository in self.gated and not known:
            return _send(to, 403, b"{}", {"X-Error-Code": "GatedRepo"})
        if path not in self.content:
            return _send(to, 404, b"{}", {"X-Error-Code": "EntryNotFound"})
        return _send(to, 302, b"", {"Location": f"{self.files_url}/bytes{path}?signed=1"})

    def _back_answer(self, to: BaseHTTPRequestHandler, path: str, headers: dict[str, str]) -> None:
        path = path.removeprefix("/bytes")
        self.starts[path] += 1
        data = self.content[path]
        wanted = re.fullmatch(r"bytes=(\d+)-", headers.get("range", ""))
        begin = int(wanted[1]) if wanted and self.ranges else 0
        if begin and begin >= len(data):
            return _send(to, 416, b"", {"Content-Range": f"bytes */{len(data)}"})
        begin += self.shift if begin else 0
        body = data[begin:]
        status, more = 200, {"ETag": f'"{hashlib.md5(data).hexdigest()}"'}
        if begin:
            status = 206
            more["Content-Range"] = f"bytes {begin}-{len(data) - 1}/{len(data)}"
        cut = self.cuts.pop(0) if self.cuts else None
        if self.stall_at is not None:
            return self._stall(to, status, more, body, self.stall_at)
        return _send(to, status, body, more, cut=cut)

    def _stall(
        self, to: BaseHTTPRequestHandler, status: int, more: dict[str, str], body: bytes, at: int
    ) -> None:
        """Send the first bytes, and the rest once it may go on."""
        self.stall_at = None
        _begin(to, status, len(body), more)
        to.wfile.write(body[:at])
        to.wfile.flush()
        self.stalled.set()
        self.go_on.wait(60)
        to.wfile.write(body[at:])


def _begin(to: BaseHTTPRequestHandler, status: int, size: int, more: dict[str, str]) -> None:
    to.send_response(status)
    to.send_header("Content-Length", str(size))
    for name, value in more.items():
        to.send_header(name, value)
    to.end_headers()


def _send(
    to: BaseHTTPRequestHandler,
    status: int,
    body: bytes,
    more: dict[str, str],
    *,
    cut: int | None = None,
) -> None:
    _begin(to, status, len(body), more)
    to.wfile.write(body if cut is None else body[:cut])
    if cut is not None:
        to.close_connection = True
