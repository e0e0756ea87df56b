"""The daemon as a service of the user: installed, started, and removed again by systemd."""

from __future__ import annotations

import asyncio
import contextlib
import shlex
from collections.abc import Callable
from pathlib import Path

from agent.core.command import run_command
from agent.core.config import Settings, cache_dir, environment_for, user_unit_dir
from agent.core.daemon_control import daemon_command
from agent.core.daemon_record import daemon_folder, find_daemon
from agent.core.errors import CommandError, ServerError, UsageError
from agent.core.systemd_unit import NAME, unit_text

_TIMEOUT_S = 60.0
"""Stopping waits for the daemon's end (TimeoutStopSec in the unit)."""
_FROM_THE_SHELL = ("PATH", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "LD_LIBRARY_PATH")
"""Variables by which a run finds llama-server, the record of the daemon and the user's settings. A
service does not get those of the shell."""
_SETTINGS = ("llamacpp_", "prefix_bank_")
_NOT_KEPT = {"llamacpp_model_path", "llamacpp_url", "llamacpp_api_key"}

Say = Callable[[str], None]


def install(settings: Settings, *, sleep_idle_min: float | None, say: Say) -> Path:
    """Write the unit, start it now and at every login; its path. The settings of now are written
    into it, since a service does not see the environment in which it was installed.

    Raises UsageError where systemd runs no services of users, ServerError when it refuses.
    """
    command = daemon_command(settings, sleep_idle_min)
    environment = _environment(settings)
    _check_systemd(command, environment)
    there = find_daemon(say)
    if there is not None and not _is_active():
        raise UsageError(
            f"A daemon runs already (pid {there.supervisor.pid}), started by hand.",
            fix="`turbo server stop`, then install the service again.",
        )
    if daemon_folder().parent != cache_dir():
        raise ServerError(
            f"{cache_dir()} cannot be written, and a service has no other folder that runs see.",
            fix="Make it writable, or set XDG_CACHE_HOME to a folder that is.",
        )
    unit = user_unit_dir() / NAME
    try:
        unit.parent.mkdir(parents=True, exist_ok=True)
        unit.write_text(unit_text(command, environment, cache_dir()), encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ServerError(f"{unit} cannot be written: {error}") from None
    _systemctl("daemon-reload")
    _systemctl("enable", NAME)
    _systemctl("restart", NAME)
    return unit


def uninstall() -> Path | None:
    """Stop the service and remove its unit; None when there is none."""
    unit = user_unit_dir() / NAME
    if not unit.exists():
        return None
    with contextlib.suppress(ServerError):  # a unit without systemd only has to be removed
        _systemctl("disable", "--now", NAME)
    unit.unlink()
    with contextlib.suppress(ServerError):
        _systemctl("daemon-reload")
    return unit


def _environment(settings: Settings) -> dict[str, str]:
    here = environment_for()
    kept = {name: here[name] for name in _FROM_THE_SHELL if name in here}
    for name, value in settings.model_dump(mode="json", exclude=_NOT_KEPT).items():
        if name in settings.model_fields_set and name.startswith(_SETTINGS):
            kept[name.upper()] = str(value)
    return kept


def _check_systemd(command: list[str], environment: dict[str, str]) -> None:
    try:
        _systemctl("show-environment")
    except ServerError as error:
        raise UsageError(
            f"systemd runs no services of users here, so nothing was installed.\n{error.message}",
            fix="Start the daemon by hand with `turbo server start`, or let the login do it: put "
            "this line into ~/.profile, or after @reboot into `crontab -e`:\n  "
            + _line_for_a_shell(command, environment),
        ) from None


def _line_for_a_shell(command: list[str], environment: dict[str, str]) -> str:
    settings = {k: v for k, v in environment.items() if k not in _FROM_THE_SHELL}
    start = ["start" if word == "run" else word for word in command]
    words = [f"{name}={value}" for name, value in settings.items()] + start
    return shlex.join(["env", *words] if settings else words)


def _is_active() -> bool:
    with contextlib.suppress(ServerError):
        _systemctl("is-active", "--quiet", NAME)
        return True
    return False


def _systemctl(*words: str) -> str:
    """What it prints. Raises ServerError when it is not there or says no."""
    argv = ("systemctl", "--user", "--no-pager", *words)
    try:
        done = asyncio.run(
            run_command(argv, cwd=Path("/"), timeout_s=_TIMEOUT_S, env=environment_for())
        )
    except CommandError as error:
        raise ServerError(error.message) from None
    if not done.ok:
        raise ServerError(
            f"`{shlex.join(argv)}` failed: {done.output.strip() or done.exit_code}",
            fix=f"`journalctl --user -u {NAME}` may say more.",
        )
    return done.output
