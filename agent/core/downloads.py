"""Fetch from the internet: what was published arrives whole, or an error says why it did not.

Unlike the clients of our own servers, this one goes through the proxies of the environment.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from agent.core.config import proxy_for
from agent.core.errors import DownloadError

_TIMEOUT = httpx.Timeout(30.0, connect=15.0)
"""Seconds of silence; a whole download may take as long as it takes."""
_NETWORK = (
    "Check that this machine is online, and TURBO_RELEASES_URL where it is set; behind a proxy "
    "set HTTPS_PROXY (and SSL_CERT_FILE)."
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
        return answer.json()
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
    on_bytes: Callable[[int], None] = lambda _: None,
) -> None:
    """Put the file at `url` into `target`, which must not exist; `on_bytes` gets the size of every
    part that arrives.

    Raises DownloadError, also when it has not exactly `size` bytes and the digest `sha256`.
    """
    digest = hashlib.sha256()
    taken = 0
    try:
        with _web_errors(), client.stream("GET", url) as answer, target.open("xb") as file:
            _check(answer)
            for part in answer.iter_raw(1 << 18):
                taken += len(part)
                if taken > size:
                    break
                digest.update(part)
                file.write(part)
                on_bytes(len(part))
    except OSError as error:
        raise DownloadError(
            f"{target} cannot be written: {error.strerror or error}",
            fix="Make room on that disk, or make the folder writable.",
        ) from None
    if taken != size or digest.hexdigest() != sha256:
        sizes = f" ({min(taken, size + 1)} of {size} bytes)" if taken != size else ""
        raise DownloadError(
            f"{url} is not the file that was published: its SHA-256 digest differs{sizes}.",
            fix="Nothing of it was kept. Try again; if it stays so, something on the way changes "
            "it, and it must not be trusted.",
        )


def _check(answer: httpx.Response) -> None:
    """Raise DownloadError unless the answer is a good one."""
    if answer.is_success:
        return
    status, url = answer.status_code, answer.request.url.copy_with(query=None)
    fix = "Try again later."
    if answer.headers.get("x-ratelimit-remaining") == "0":
        until = _clock(answer.headers.get("x-ratelimit-reset", ""))
        reason = f"answered {status}: too many requests from this address{until}"
    elif status == httpx.codes.PROXY_AUTHENTICATION_REQUIRED:
        reason = "is behind a proxy that wants a name and a password"
        fix = "Put them into HTTPS_PROXY (or HTTP_PROXY): http://name:password@host:port."
    else:
        reason = f"answered {status} {answer.reason_phrase}".rstrip()
    raise DownloadError(f"{url} {reason}.", fix=fix, status=status)


def _clock(reset: str) -> str:
    return f" until {time.strftime('%H:%M', time.localtime(int(reset)))}" if reset.isdigit() else ""


@contextmanager
def _web_errors() -> Iterator[None]:
    try:
        yield
    except httpx.RequestError as error:
        url = error.request.url
        detail = str(error) or type(error).__name__
        proxy = proxy_for(str(url))
        if proxy and isinstance(
            error, (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError)
        ):
            message = f"{url.host} cannot be reached through the proxy {proxy}: {detail}"
            fix = f"Correct HTTPS_PROXY (or HTTP_PROXY), or put {url.host} into NO_PROXY."
            raise DownloadError(message, fix=fix) from error
        if isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout)):
            message = f"{url.host} cannot be reached: {detail}"
        elif isinstance(error, httpx.TimeoutException):
            message = f"{url.host} sent nothing for {_TIMEOUT.read:g} s."
        else:
            message = f"The connection to {url.host} was lost: {detail}"
        raise DownloadError(message, fix=_NETWORK) from error
