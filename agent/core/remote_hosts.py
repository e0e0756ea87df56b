"""Servers on other machines: which may be asked, and what went there.

Prompts hold the repository's text. They leave this machine only to a host that the user has named.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Any, Self

import httpx

from agent.core.config import Settings
from agent.core.errors import SettingsError
from agent.core.http_errors import checked_url


@dataclass
class Sent:
    """What was sent to another machine so far."""

    host: str
    requests: int = 0
    size: int = 0
    """Bytes of their bodies."""

    @classmethod
    def to(cls, url: str) -> Self | None:
        """A count that begins; None for a server on this machine."""
        host = remote_host(url)
        return cls(host) if host else None

    async def count(self, request: httpx.Request) -> None:
        """A hook of httpx for requests."""
        self.requests += 1
        self.size += int(request.headers.get("content-length", 0))


def told_since(before: Sent | None, now: Sent | None) -> dict[str, Any] | None:
    """What was sent between two counts, as JSON values; None when nothing goes anywhere."""
    if now is None:
        return None
    earlier = before or Sent(now.host)
    return {
        "host": now.host,
        "requests": now.requests - earlier.requests,
        "bytes": now.size - earlier.size,
    }


def remote_host(url: str) -> str:
    """The host of an address in lower case; empty when it is this machine."""
    host = httpx.URL(url).host.lower().rstrip(".")
    if host == "localhost":
        return ""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    return "" if address.is_loopback or address.is_unspecified else host


def allowed_url(url: str, setting: str, settings: Settings) -> str:
    """`url`, the value of `setting`, without a trailing slash. Raises SettingsError when it is no
    address, or one of another machine that TURBO_REMOTE_HOSTS does not name."""
    checked = checked_url(url, setting)
    host = remote_host(checked)
    if host and host not in {x.strip("[]").lower() for x in settings.turbo_remote_hosts}:
        raise SettingsError(
            f"{setting} leads to {host}, which is not this machine: prompts with the repository's "
            "text would leave it.",
            fix=f"To allow that, set TURBO_REMOTE_HOSTS={host} in the environment or in your own "
            "config file.",
        )
    return checked
