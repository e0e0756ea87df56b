"""One thing that was examined, as a value."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from agent.core.errors import ServerError, TurboError

State = Literal["ok", "warning", "failure", "not checked"]


@dataclass(frozen=True, kw_only=True)
class Check:
    """What was examined, how it is, and what to do about it."""

    name: str
    state: State
    """`warning`: runs work, but worse than they could; `failure`: they do not work."""
    found: str
    """One line."""
    fix: str = ""
    """What the user can do; empty when nothing is to be done."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """The same for programs; JSON values."""


def warned(name: str, found: str, fix: str, details: Mapping[str, Any] | None = None) -> Check:
    """Runs work all the same."""
    return Check(name=name, state="warning", found=found, fix=fix, details=details or {})


def failed(name: str, error: TurboError) -> Check:
    """No run works. Of a server that died the log is named, not shown."""
    found = error.message.partition("\nEnd of its log:")[0].replace("\n", " ")
    details = {"message": error.message}
    if isinstance(error, ServerError) and error.log is not None:
        found += f" Log: {error.log}"
        details["log"] = str(error.log)
    return Check(name=name, state="failure", found=found, fix=error.fix, details=details)


def unchecked(names: Iterable[str], reason: str) -> list[Check]:
    """What could not be examined, because of `reason`."""
    return [Check(name=x, state="not checked", found=f"because {reason}") for x in names]
