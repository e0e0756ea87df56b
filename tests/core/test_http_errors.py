from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from agent.core.errors import (
    BackendError,
    BackendStalled,
    BackendUnavailable,
    SettingsError,
)
from agent.core.http_errors import checked_url, http_errors, without_password


def descendants(kind: type[httpx.RequestError]) -> Iterator[type[httpx.RequestError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from descendants(child)


def translated(kind: type[httpx.RequestError]) -> BackendError:
    with pytest.raises(BackendError) as caught, http_errors("peer", stall_s=3, fix="do this"):
        raise kind("why")
    return caught.value


@pytest.mark.parametrize("kind", sorted(descendants(httpx.RequestError), key=str))
def test_every_request_error_of_httpx_becomes_ours(kind: type[httpx.RequestError]) -> None:
    error = translated(kind)
    assert "peer" in error.message
    assert isinstance(error.__cause__, kind)
    if issubclass(kind, (httpx.ReadTimeout, httpx.WriteTimeout)):
        assert type(error) is BackendStalled
    elif issubclass(kind, httpx.TransportError):
        assert type(error) is BackendUnavailable


def test_nothing_else_of_httpx_is_left_for_a_request_to_raise() -> None:
    """HTTPStatusError comes from raise_for_status, which we do not call; StreamError and its
    kin are bugs of ours."""
    assert set(httpx.HTTPError.__subclasses__()) == {httpx.RequestError, httpx.HTTPStatusError}


def test_messages_say_what_to_do() -> None:
    assert "do this" in str(translated(httpx.ConnectError))
    assert "REQUEST_TIMEOUT_S" in str(translated(httpx.ReadTimeout))
    assert "3 s" in str(translated(httpx.ReadTimeout))


@pytest.mark.parametrize("url", ["localhost:80", "ftp://host", "http://", "http://h:x"])
def test_an_address_that_is_none_is_refused_by_name(url: str) -> None:
    with pytest.raises(SettingsError, match="LLAMACPP_URL"):
        checked_url(url, "LLAMACPP_URL")


def test_a_trailing_slash_is_dropped() -> None:
    assert checked_url("http://host:1/", "X") == "http://host:1"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://user:secret@host:1/path", "http://***@host:1/path"),
        ("http://us@er:se@cret@host", "http://***@host"),
        ("http://host:1/a@b", "http://host:1/a@b"),
        ("user:secret@host", "***@host"),
    ],
)
def test_a_password_is_not_shown(url: str, shown: str) -> None:
    assert without_password(url) == shown
