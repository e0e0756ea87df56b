"""Fetch from the internet: what was published arrives whole, or an error says why it did not.

A connection that is cut is taken up where it broke off, also by another program later: what has
arrived stays in the file, and only the digest of the whole decides whether it is the right one.

Unlike the clients of our own servers, this one goes through the proxies of the environment.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO

import httpx

from agent.core.config import proxy_for
from agent.core.errors import DownloadError
from agent.core.json_value import read_json

_TIMEOUT = httpx.Timeout(30.0, connect=15.0)
"""Seconds of silence; a whole download may take as long as it takes."""
Watch = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]
"""Shows a download of this name and size; what it yields is told of every part, as `on_bytes` of
`download` is."""

_CHUNK = 1 << 18
_PAUSES_S = (1.0, 2.0, 4.0, 8.0)
"""Before each new try after one that brought nothing; after one that did there is none."""
_PASSING = frozenset({408, 429, 500, 502, 503, 504})
"""Answers that may be others a moment later."""
_NETWORK = (
    "Check that this machine is online, and the address, where TURBO_RELEASES_URL or HF_ENDPOINT "
    "set it; behind a proxy set HTTPS_PROXY (and SSL_CERT_FILE)."
)


@contextmanager
def internet() -> Iterator[httpx.Client]:
    """A client for `fetch_json` and `download`. Raises DownloadError for a proxy that is none."""
    try:
        client = httpx.Client(
            follow_redirects=True,
            timeout=_TIMEOUT,
            headers={"Accept-Encoding": "identity", "User-Agent": "turbo-local-coder"},
        )
    except (ValueError, ImportError, httpx.InvalidURL) as error:
        raise DownloadError(
            f"The proxy that the environment names cannot be used: {error}",
            fix="Correct HTTPS_PROXY, HTTP_PROXY or ALL_PROXY: http://host:port.",
        ) from None
    with client:
        yield client


def fetch_json(client: httpx.Client, url: str) -> Any:
    """What the service at `url` answers. Raises DownloadError."""
    with _web_errors():
        answer = client.get(url)
    _check(answer)
    try:
        return read_json(answer.content)
    except ValueError:
        raise DownloadError(
            f"{url} answered with something that is no JSON.",
            fix="Is it the login page of a network or proxy? Open it in a browser.",
        ) from None


def download(
    client: httpx.Client,
    url: str,
    target: Path,
    *,
    sha256: str,
    size: int,
    token: str = "",
    on_bytes: Callable[[int], None] = lambda _: None,
) -> None:
    """Put the file at `url` into `target`; what is in it already is its beginning. `on_bytes` gets
    the size of every part that is there, and a negative one for what has to be fetched again.

    Raises DownloadError. When the file has not exactly `size` bytes and the digest `sha256` in the
    end, nothing of it is kept; after any other failure what arrived is, for the next time.
    """
    try:
        with target.open("a+b") as file:
            arriving = _Arriving(file, size, on_bytes)
            arriving.take_up()
            if arriving.taken < size:
                _fetch_rest(client, url, token, arriving)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise DownloadError(
            f"{target} cannot be written: {error.strerror or error}",
            fix="Make room on that disk, or make the folder writable.",
        ) from None
    if arriving.taken != size or arriving.digest.hexdigest() != sha256:
        target.unlink(missing_ok=True)
        shown = min(arriving.taken, size + 1)
        sizes = f" ({shown} of {size} bytes)" if shown != size else ""
        raise DownloadError(
            f"{url} is not the file that was published: its SHA-256 digest differs{sizes}.",
            fix="Nothing of it was kept. Try again; if it stays so, something on the way changes "
            "it, and it must not be trusted.",
        )


class _Arriving:
    """The file so far."""

    def __init__(self, file: BinaryIO, size: int, on_bytes: Callable[[int], None]) -> None:
        self._file = file
        self._on_bytes = on_bytes
        self.size = size
        self.taken = 0
        self.received = 0
        """Bytes that came in this call, those included that were dropped again."""
        self.digest = hashlib.sha256()

    def take_up(self) -> None:
        """Count what is in the file already, unless it is more than there can be."""
        self._file.seek(0)
        while part := self._file.read(_CHUNK):
            self._count(part)
        if self.taken > self.size:
            self.drop()

    def add(self, part: bytes) -> None:
        """What comes next."""
        self._file.write(part)
        self.received += len(part)
        self._count(part)

    def drop(self) -> None:
        """Begin again."""
        self._file.truncate(0)
        self._on_bytes(-self.taken)
        self.taken = 0
        self.digest = hashlib.sha256()

    def _count(self, part: bytes) -> None:
        self.digest.update(part)
        self.taken += len(part)
        self._on_bytes(len(part))


def _fetch_rest(client: httpx.Client, url: str, token: str, arriving: _Arriving) -> None:
    """Fetch what is missing, in as many tries as it takes while each brings something new."""
    furthest = arriving.taken
    pauses = iter(_PAUSES_S)
    while True:
        try:
            _fetch_once(client, url, token, arriving)
        except DownloadError as error:
            if error.status is not None and error.status not in _PASSING:
                raise
            if arriving.taken > furthest:
                furthest = arriving.taken
                pauses = iter(_PAUSES_S)
                continue
            pause = next(pauses, None)
            if pause is None or not arriving.received:  # without any, it is no passing fault
                raise
            time.sleep(pause)
        else:
            return


def _fetch_once(client: httpx.Client, url: str, token: str, arriving: _Arriving) -> None:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    if arriving.taken:
        headers["Range"] = f"bytes={arriving.taken}-"
    with _web_errors(), client.stream("GET", url, headers=headers) as answer:
        if answer.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE and arriving.taken:
            arriving.drop()  # the file there is shorter than what we have of it
            return _fetch_once(client, url, token, arriving)
        _check(answer)
        if _first_byte(answer) != arriving.taken:
            if answer.status_code == httpx.codes.PARTIAL_CONTENT:
                raise DownloadError(
                    f"{url.partition('?')[0]} answered with another part than it was asked for.",
                    fix="Try again; behind a proxy, try without it.",
                    status=answer.status_code,
                )
            arriving.drop()  # it knows no ranges and sends the whole
        for part in answer.iter_raw():  # as it comes, so that a cut loses nothing
            arriving.add(part)
            if arriving.taken > arriving.size:
                return None
    return None


def _first_byte(answer: httpx.Response) -> int:
    if answer.status_code != httpx.codes.PARTIAL_CONTENT:
        return 0
    told = re.match(r"bytes (\d+)-", answer.headers.get("content-range", ""))
    return int(told[1]) if told else -1


def _check(answer: httpx.Response) -> None:
    """Raise DownloadError unless the answer is a good one."""
    if answer.is_success:
        return
    status, url = answer.status_code, answer.request.url.copy_with(query=None)
    code = answer.headers.get("x-error-code", "")
    fix = "Try again later."
    if answer.headers.get("x-ratelimit-remaining") == "0":
        until = _clock(answer.headers.get("x-ratelimit-reset", ""))
        reason = f"answered {status}: too many requests from this address{until}"
    elif status == httpx.codes.PROXY_AUTHENTICATION_REQUIRED:
        reason = "is behind a proxy that wants a name and a password"
        fix = "Put them into HTTPS_PROXY (or HTTP_PROXY): http://name:password@host:port."
    else:
        reason = f"answered {status} {answer.reason_phrase}".rstrip()
    raise DownloadError(f"{url} {reason}.", fix=fix, status=status, code=code)


def _clock(reset: str) -> str:
    return f" until {time.strftime('%H:%M', time.localtime(int(reset)))}" if reset.isdigit() else ""


@contextmanager
def _web_errors() -> Iterator[None]:
    try:
        yield
    except (httpx.TooManyRedirects, httpx.UnsupportedProtocol) as error:
        raise misled(str(error.request.url), error) from error
    except httpx.RequestError as error:
        raise network_error(str(error.request.url), error, httpx) from error


def misled(url: str, error: Exception) -> DownloadError:
    """Our exception for a service that sends us round in circles, or to no address of the web."""
    host = urllib.parse.urlsplit(url).hostname or url.partition("?")[0]
    return DownloadError(
        f"{host} redirects to where nothing can be fetched: {error}",
        fix="Is TURBO_RELEASES_URL or HF_ENDPOINT the right address, and is there no login page on "
        "the way?",
    )


def network_error(url: str, error: Exception, client: ModuleType) -> DownloadError:
    """Our exception for a network that failed; `error` is what the library `client` says of it,
    which is httpx or has its exceptions."""
    host = urllib.parse.urlsplit(url).hostname or url
    detail = str(error) or type(error).__name__
    proxy = proxy_for(url)
    never_there = (client.ConnectError, client.ConnectTimeout, client.ProxyError)
    if isinstance(error, never_there) and proxy:
        message = f"{host} cannot be reached through the proxy {proxy}: {detail}"
        fix = f"Correct HTTPS_PROXY (or HTTP_PROXY), or put {host} into NO_PROXY."
        return DownloadError(message, fix=fix)
    if isinstance(error, never_there):
        message = f"{host} cannot be reached: {detail}"
    elif isinstance(error, client.TimeoutException):
        message = f"{host} sent nothing for {_TIMEOUT.read:g} s."
    else:
        message = f"The connection to {host} was lost: {detail}"
    return DownloadError(message, fix=_NETWORK)
