"""``turbo doctor``: one table of everything that a run needs, with the fix for what is wrong."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agent.options import AsObject

if TYPE_CHECKING:
    from agent.core.doctor_check import Check

_FAILED = 3
_STYLES = {"ok": "green", "warning": "yellow", "failure": "bold red", "not checked": "dim"}


def doctor(
    model: Annotated[
        Path | None, typer.Option(help="A GGUF model file, or a model's name.")
    ] = None,
    as_json: AsObject = False,
) -> None:
    """Examine binary, model, server, sandbox, git and disk, and say how to mend what is wrong.

    Starts the server as a run does, asks it, and ends it. Exit code 3 when something has failed.
    """
    from agent.core.config import load_settings
    from agent.core.doctor import examine
    from agent.core.signals import Interrupted, run_until_signal

    here = Path.cwd()
    repository = next((x for x in (here, *here.parents) if (x / ".git").exists()), None)
    settings = load_settings(repository=repository, overrides={"llamacpp_model_path": model})
    try:
        checks = run_until_signal(examine(settings, repository=repository))
    except Interrupted as stopped:
        raise typer.Exit(stopped.exit_code) from None
    if as_json:
        typer.echo(json.dumps(_as_object(checks), indent=2))
    else:
        _show(checks)
    if any(check.state == "failure" for check in checks):
        raise typer.Exit(_FAILED)


def _as_object(checks: Sequence[Check]) -> dict[str, Any]:
    states = [check.state for check in checks]
    return {
        "healthy": "failure" not in states,
        "failures": states.count("failure"),
        "warnings": states.count("warning"),
        "checks": [
            {
                "name": check.name,
                "state": check.state,
                "found": check.found,
                "fix": check.fix or None,
                "details": dict(check.details),
            }
            for check in checks
        ],
    }


def _show(checks: Sequence[Check]) -> None:
    from rich.table import Table

    from agent.core.tables import table_console
    from agent.core.terminal import printable

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("check", no_wrap=True)
    table.add_column("state", no_wrap=True)
    table.add_column("found, and what to do", overflow="fold")
    for check in checks:
        fix = f"\n-> {check.fix}" if check.fix else ""
        table.add_row(check.name, check.state, printable(check.found + fix))
        table.rows[-1].style = _STYLES[check.state] if check.state != "ok" else None
    with table_console() as console:
        console.print(table)
        console.print()
        console.print(f"{_count(checks, 'failure')}, {_count(checks, 'warning')}")


def _count(checks: Sequence[Check], state: str) -> str:
    number = sum(check.state == state for check in checks)
    return f"{number} {state}{'' if number == 1 else 's'}"
