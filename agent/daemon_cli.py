"""``turbo server start`` and its like: one llama-server for all runs of a user."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agent.options import AsObject

if TYPE_CHECKING:
    from agent.core.config import Settings
    from agent.core.daemon_record import DaemonRecord
    from agent.core.daemon_status import DaemonStatus

_LONGEST_SLEEP_MIN = 525_600
"""A year: the server counts seconds in 32 bits."""
_Model = Annotated[Path | None, typer.Option(help="A GGUF model file, or a model's name.")]
_SleepIdle = Annotated[
    float | None,
    typer.Option(
        min=0.01,
        max=_LONGEST_SLEEP_MIN,
        metavar="MINUTES",
        help="Give the memory back after so long without a request; the next one waits for a load.",
    ),
]
_Force = Annotated[bool, typer.Option("--force", help="Even while runs use it; they fail.")]


def add_commands(app: typer.Typer) -> None:
    """Register the commands of the daemon."""
    for command in (start, stop, restart, status, logs, run, install_service, uninstall_service):
        app.command()(command)


def start(model: _Model = None, sleep_idle: _SleepIdle = None) -> None:
    """Start the daemon: a llama-server that stays, and that every run uses which fits.

    Nothing happens when it runs already; exit code 2 when it serves something else.
    """
    from agent.core import daemon_control
    from agent.core.signals import raise_interrupted

    with raise_interrupted():
        settings = _settings(model)
        started = daemon_control.start(settings, sleep_idle_min=sleep_idle, say=_say)
    _tell_started(started.record, already=started.already)


def restart(model: _Model = None, sleep_idle: _SleepIdle = None, force: _Force = False) -> None:
    """Stop the daemon and start it with the settings and options of now."""
    from agent.core import daemon_control
    from agent.core.signals import raise_interrupted

    with raise_interrupted():
        settings = _settings(model)
        started = daemon_control.restart(settings, sleep_idle_min=sleep_idle, force=force, say=_say)
    _tell_started(started.record, already=False)


def stop(force: _Force = False) -> None:
    """Stop the daemon. Exit code 2 while a run uses it."""
    from agent.core import daemon_control

    stopped = daemon_control.stop(force=force, say=_say)
    typer.echo("The daemon is stopped." if stopped else "No daemon runs.")


def status(
    as_json: AsObject = False,
) -> None:
    """Tell how the daemon is. Exit code 1 when none runs."""
    from agent.core.daemon_record import find_daemon
    from agent.core.daemon_status import status_of

    record = find_daemon(_say)
    found = status_of(record) if record else None
    if as_json:
        typer.echo(json.dumps(found.as_object() if found else {"running": False}, indent=1))
    else:
        typer.echo(_shown(found) if found else "No daemon runs.")
    if found is None:
        raise typer.Exit(1)


def logs(
    lines: Annotated[int, typer.Option("-n", "--lines", min=0, help="Lines of each log.")] = 20,
    follow: Annotated[
        bool, typer.Option("-f", "--follow", help="Go on with what is added, until Ctrl-C.")
    ] = False,
) -> None:
    """Print the end of the logs of the daemon and of its last llama-server."""
    from agent.core.daemon_logs import Logs

    shown = Logs()
    ends = list(shown.ends(lines))
    for text in ends:
        typer.echo(text)
    if not ends:
        _say("There are no logs: no daemon was started yet.")
    while follow:
        for text in shown.added():
            typer.echo(text)


def run(model: _Model = None, sleep_idle: _SleepIdle = None) -> None:
    """Be the daemon in the foreground, as systemd and containers want it, until a signal comes."""
    from agent.core.daemon import serve
    from agent.core.daemon_control import sleep_seconds
    from agent.core.signals import Interrupted, run_until_signal

    idle_s = None if sleep_idle is None else sleep_seconds(sleep_idle)
    try:
        run_until_signal(serve(_settings(model), sleep_idle_s=idle_s, say=_log))
    except Interrupted:
        _log("The daemon ends, as it was asked to.")


def install_service(model: _Model = None, sleep_idle: _SleepIdle = None) -> None:
    """Let systemd run the daemon, from now on and at every login. Exit code 2 where it cannot."""
    from agent.core import systemd_service

    unit = systemd_service.install(_settings(model), sleep_idle_min=sleep_idle, say=_say)
    typer.echo(f"Installed and started: {unit}")
    typer.echo(
        f"`turbo server status` tells when it is ready; its log: journalctl --user -u {unit.name}"
    )
    typer.echo("To have it without a login: loginctl enable-linger")


def uninstall_service() -> None:
    """Stop the service of systemd and remove it."""
    from agent.core import systemd_service

    unit = systemd_service.uninstall()
    typer.echo(f"Removed: {unit}" if unit else "No service is installed.")


def _settings(model: Path | None) -> Settings:
    """The settings of a daemon; UsageError where no run would use it."""
    from agent.core.config import load_settings
    from agent.core.determinism import with_tier
    from agent.core.errors import UsageError

    here = Path.cwd()
    repository = next((x for x in (here, *here.parents) if (x / ".git").exists()), None)
    overrides = {"llamacpp_model_path": model}
    settings, _ = with_tier(load_settings(repository=repository, overrides=overrides))
    for name, value in (
        ("BACKEND=ollama", settings.backend == "ollama"),
        ("LLAMACPP_URL", settings.llamacpp_url is not None),
        ("TURBO_DETERMINISM=strict", settings.turbo_determinism == "strict"),
    ):
        if value:
            raise UsageError(f"With {name}, no run uses a daemon.", fix="Unset it for the daemon.")
    return settings


def _tell_started(record: DaemonRecord, *, already: bool) -> None:
    serving = record.serving
    if serving is None:
        return
    state = "runs already" if already else "runs"
    typer.echo(
        f"The daemon {state} (pid {record.supervisor.pid}): {serving.description} at {serving.url} "
        f"serves {serving.model.name}, {_slots(serving.slots)} x {serving.context} tokens."
    )


def _shown(found: DaemonStatus) -> str:
    times = "once" if found.restarts == 1 else f"{found.restarts} times"
    rows = [("daemon", f"{found.state}, pid {found.pid}, up {_duration(found.uptime_s)}")]
    if found.server_pid is not None:
        restarts = f", started again {times}" if found.restarts else ""
        rows += [
            ("server", f"llama-server {found.build}, pid {found.server_pid}{restarts}"),
            ("address", found.url),
            ("model", found.model),
            ("slots", f"{found.slots} x {found.context} tokens, busy: {found.busy_slots}"),
            ("log", str(found.log)),
        ]
    sleep = f"after {_duration(found.sleep_idle_s)} idle" if found.sleep_idle_s else "never"
    rows += [
        ("memory", f"{found.memory / (1 << 20):.0f} MiB"),
        ("sleeps", sleep),
        ("used by", ", ".join(f"pid {pid}" for pid in found.users) or "no run"),
    ]
    return "\n".join(f"{name:<8} {value}" for name, value in rows)


def _slots(number: int) -> str:
    return f"{number} slot{'' if number == 1 else 's'}"


def _duration(seconds: float) -> str:
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes = whole // 60
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def _log(line: str) -> None:
    """A line of the daemon's own log, with its time."""
    from agent.core.daemon_control import stamped

    _say(stamped(line))


def _say(line: str) -> None:
    from agent.core.terminal import printable

    sys.stderr.write(f"{printable(line)}\n")
    sys.stderr.flush()
