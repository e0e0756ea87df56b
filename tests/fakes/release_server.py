"""A local server that speaks GitHub's API for releases, and archives in the shape of llama.cpp's.

It also serves requests in a proxy's form (``GET http://host/path``), so that it can be the proxy.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import threading
import urllib.parse
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self


def packed_tar(folder: Path, top: str, *, links: dict[str, str] | None = None) -> bytes:
    """A tar.gz of the files of `folder` below one folder `top`."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz", compresslevel=1) as archive:
        for path in sorted(folder.iterdir()):
            archive.add(path, f"{top}/{path.name}")
        for name, target in (links or {}).items():
            link = tarfile.TarInfo(f"{top}/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, target
            archive.addfile(link)
    return stream.getvalue()


def packed_zip(folder: Path, top: str) -> bytes:
    """A zip of the files of `folder` below `top`, with their modes."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for path in sorted(folder.iterdir()):
            archive.write(path, f"{top}/{path.name}")
    return stream.getvalue()


class ReleaseServer:
    """Serves what `publish` was given while the ``with`` lasts."""

    def __init__(self) -> None:
        self.releases: dict[str, dict[str, Any]] = {}
        self.files: dict[str, bytes] = {}
        self.replies: dict[str, tuple[int, dict[str, str], bytes]] = {}
        """Answers for these paths instead of the right ones: status, headers, body."""
        self.asked: list[str] = []
        """Request targets as they came in."""
        self.latest = ""
        self.stalled = threading.Event()
        """A request of `stall` has got all of its body that it gets so far."""
        self._waits: dict[str, threading.Event] = {}

    def stall(self, path: str, until: threading.Event) -> None:
        """Keep the connection open after the body, until the event."""
        self._waits[path] = until

    def __enter__(self) -> Self:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(self.path)
                status, headers, body = outer._answer(urllib.parse.urlsplit(self.path).path)
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)
                if wait := outer._waits.get(self.path):
                    outer.stalled.set()
                    wait.wait(60)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.host = f"http://127.0.0.1:{self._server.server_port}"
        self.url = f"{self.host}/repos/ggml-org/llama.cpp"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        return self

    def __exit__(self, *details: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def publish(self, tag: str, archives: dict[str, bytes], *, host: str | None = None) -> None:
        """Make a release; it is the latest then. The downloads are redirected, as GitHub does."""
        assets = []
        for name, content in archives.items():
            self.files[f"/files/{tag}/{name}"] = content
            self.replies[f"/download/{tag}/{name}"] = (
                302,
                {"Location": f"{host or self.host}/files/{tag}/{name}"},
                b"",
            )
            assets.append(
                {
                    "name": name,
                    "browser_download_url": f"{host or self.host}/download/{tag}/{name}",
                    "size": len(content),
                    "digest": f"sha256:{hashlib.sha256(content).hexdigest()}",
                }
            )
        self.releases[tag] = {"tag_name": tag, "assets": assets}
        self.latest = tag

    def _answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        if path in self.replies:
            return self.replies[path]
        if path in self.files:
            return 200, {}, self.files[path]
        tag = path.rpartition("/")[2]
        release = self.releases.get(self.latest if path.endswith("/releases/latest") else tag)
        if release is None:
            return 404, {}, b'{"message": "Not Found"}'
        return 200, {}, json.dumps(release).encode()
