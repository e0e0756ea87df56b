"""The one seam where httpx's exceptions become ours."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import httpx

from agent.core.errors import BackendError, BackendStalled, BackendUnavailable, SettingsError

CONNECT_TIMEOUT_S = 10.0
"""A server on this machine or its network that takes longer to accept is not there."""

_KEEPALIVE_S = 3.0
"""llama-server closes idle connections after 5 s; we stop using them before it does."""

_MOST_BODY = 16 * 1024 * 1024
"""Bytes. The tokens of the largest file that is shown take 3 MB."""

HIDDEN = "***@"
"""Stands for user and password in an address."""

_SHOWN = 200
"""Characters of what a library says."""

_URL_FIX = "Write it as http://host:port, or https://host/path where it has one."

_MAP: dict[type[httpx.RequestError], type[BackendError]] = {
    httpx.ReadTimeout: BackendStalled,
    httpx.WriteTimeout: BackendStalled,
    httpx.TransportError: BackendUnavailable,
    httpx.RequestError: BackendError,
}
"""The nearest class in an exception's line of ancestors decides."""


def translate(error: httpx.RequestError, peer: str, *, stall_s: float, fix: str) -> BackendError:
    """Our exception for `error`; `peer` is who we spoke to, for the message."""
    ours = next(_MAP[kind] for kind in type(error).__mro__ if kind in _MAP)
    if ours is BackendStalled:
        return stalled(peer, stall_s)
    detail = str(error)[:_SHOWN] or type(error).__name__  # it may quote all that was received
    if isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout, httpx.UnsupportedProtocol)):
        return ours(f"Nothing answers at {peer}: {detail}", fix=fix)
    return ours(f"The connection to {peer} was lost: {detail}", fix=fix)


def stalled(peer: str, stall_s: float) -> BackendStalled:
    """Nothing came for `stall_s` seconds."""
    return BackendStalled(
        f"{peer} sent neither a token nor progress for {stall_s:g} s.",
        fix="Raise REQUEST_TIMEOUT_S on a slow machine; otherwise restart the server.",
    )


@contextmanager
def http_errors(peer: str, *, stall_s: float, fix: str) -> Iterator[None]:
    """Everything that httpx raises inside leaves as one of our errors."""
    try:
        yield
    except httpx.RequestError as error:
        raise translate(error, peer, stall_s=stall_s, fix=fix) from error


@contextmanager
def understanding(peer: str, endpoint: str, *, fix: str) -> Iterator[None]:
    """A reply that lacks its documented form is a failure of the peer, not a bug of ours."""
    try:
        yield
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        OverflowError,  # a number without end, where a count should be
        RecursionError,  # JSON in JSON in JSON
    ) as error:
        raise BackendError(
            f"{peer} answered {endpoint} in a form that we do not know: "
            f"{type(error).__name__}: {error}",
            fix=fix,
        ) from error


async def read_body(response: httpx.Response) -> bytes:
    """The whole body of a streamed response. Raises BackendError when it is too long to be one of
    a model server."""
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > _MOST_BODY:
            raise too_long("a reply", _MOST_BODY)
    return bytes(body)


def too_long(what: str, most: int) -> BackendError:
    """The error for something of more than `most` bytes that a server sends."""
    return BackendError(
        f"The server sent {what} of more than {most} bytes.",
        fix="Check that the address is that of the model server.",
    )


def new_client(
    url: str,
    *,
    stall_s: float,
    headers: dict[str, str] | None = None,
    on_request: Callable[[httpx.Request], Awaitable[None]] | None = None,
) -> httpx.AsyncClient:
    """A pooled client. No total limit: slow machines are slow, only silence is a failure. It
    follows no redirection and uses no proxy, so that requests go where `url` says."""
    return httpx.AsyncClient(
        base_url=url,
        headers={"Accept-Encoding": "identity"} | (headers or {}),
        timeout=httpx.Timeout(stall_s, connect=CONNECT_TIMEOUT_S, pool=None),
        limits=httpx.Limits(keepalive_expiry=_KEEPALIVE_S),
        # Reading the certificate store takes longer than a request; plain HTTP needs none.
        verify=url.startswith("https:"),
        trust_env=False,
        event_hooks={"request": [on_request] if on_request else []},
    )


def without_password(url: str) -> str:
    """`url` as it may be shown and kept: user and password before the host are hidden."""
    before, separator, after = url.partition("://")
    scheme, rest = (before, after) if separator else ("", before)
    authority, slash, path = rest.partition("/")
    _, hidden, host = authority.rpartition("@")
    return f"{scheme}{separator}{HIDDEN}{host}{slash}{path}" if hidden else url


def checked_url(url: str, setting: str) -> str:
    """`url` without a trailing slash. Raises SettingsError when it is no http(s) address."""
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise SettingsError(f"{setting}={without_password(url)}: {error}", fix=_URL_FIX) from None
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise SettingsError(
            f"{setting}={without_password(url)} is no address of a server.", fix=_URL_FIX
        )
    return url.rstrip("/")
