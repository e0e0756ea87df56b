"""The daemon from outside: start it, stop it, ask how it is."""

from __future__ import annotations

import contextlib
import re
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import agent
from agent.core.config import Settings
from agent.core.daemon_record import (
    DaemonRecord,
    being_the_starter,
    daemon_lives,
    find_daemon,
    users_of_the_daemon,
)
from agent.core.daemon_status import status_of
from agent.core.daemon_wish import differences, wish_of
from agent.core.detached import Detached
from agent.core.errors import ServerError, UsageError
from agent.core.folders import cache_folder
from agent.core.model_choice import chosen_model
from agent.core.server_notes import end_left_over
from agent.core.signals import signals_held

_STOP_PATIENCE_S = 10.0
"""The daemon needs less than a second to end its server."""
_PAUSE_S = 0.02
_LOG_LIMIT = 1 << 20
_TIME = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ")

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Started:
    """A daemon that runs."""

    record: DaemonRecord
    already: bool
    """It ran before."""


def daemon_command(settings: Settings, sleep_idle_min: float | None) -> list[str]:
    """The command line of a daemon in the foreground, with the model and sleep that are asked for.
    The other settings it reads itself."""
    # -P: a folder named `agent` where the user happens to be is not us.
    argv = [sys.executable, "-P", "-m", "agent", "server", "run"]
    if settings.llamacpp_model_path is not None:
        argv += ["--model", str(chosen_model(settings))]
    if sleep_idle_min is not None:
        argv += ["--sleep-idle", f"{sleep_idle_min:g}"]
    return argv


def sleep_seconds(minutes: float) -> int:
    """Minutes of the command line as llama-server takes them."""
    return max(1, round(minutes * 60))


def log_folder() -> Path:
    """Where the daemon and its servers log."""
    return cache_folder("daemon-logs", private=True)


def daemon_log() -> Path:
    """The log of the daemon itself, when `start` started it."""
    return log_folder() / "daemon.log"


def stamped(line: str) -> str:
    """A line for the daemon's log, with the time of now."""
    return f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}"


def start(settings: Settings, *, sleep_idle_min: float | None, say: Say) -> Started:
    """Start the daemon and wait until its server is ready.

    Raises UsageError when one runs that is not what is asked for, EngineError when there is no
    server to be had.
    """
    with being_the_starter(patience_s=settings.llamacpp_start_timeout_s):
        return _start(settings, sleep_idle_min, say)


def restart(settings: Settings, *, sleep_idle_min: float | None, force: bool, say: Say) -> Started:
    """Stop the daemon, if there is one, and start it as it is asked for now."""
    with being_the_starter(patience_s=settings.llamacpp_start_timeout_s):
        _stop(force, say)
        return _start(settings, sleep_idle_min, say)


def stop(*, force: bool, say: Say) -> bool:
    """Stop the daemon; False when there is none. Runs that use it fail, so there must be none
    unless `force`.

    Raises UsageError when there are, ServerError when it does not end.
    """
    with being_the_starter(patience_s=_STOP_PATIENCE_S):
        return _stop(force, say)


def _start(settings: Settings, sleep_idle_min: float | None, say: Say) -> Started:
    there = find_daemon(say)
    if there is not None:
        return _already(there, settings, sleep_idle_min)
    log = daemon_log()
    with contextlib.suppress(OSError):
        if log.stat().st_size > _LOG_LIMIT:
            log.unlink()
    before = log.stat().st_size if log.exists() else 0
    child: Detached | None = None
    try:
        with signals_held():  # one that comes while it starts must find it named
            child = Detached(daemon_command(settings, sleep_idle_min), log=log)
        record = _ready(child, log, before)
    except BaseException:
        if child is not None:
            child.end(patience_s=_STOP_PATIENCE_S)
        raise
    for line in _since(log, before).splitlines():
        say(_TIME.sub("", line))
    return Started(record=record, already=False)


def _ready(child: Detached, log: Path, before: int) -> DaemonRecord:
    """Wait for the daemon, which gives up by itself when its server is late."""
    while True:
        record = find_daemon() if daemon_lives() else None
        if record and record.supervisor.pid == child.pid and record.serving is not None:
            return record
        code = child.exit_code()
        if code is not None:
            said, _, error = _since(log, before).rpartition("turbo: ")
            kind = UsageError if code == UsageError.exit_code else ServerError
            raise kind(error.strip() if said or error else f"The daemon ended ({code}); see {log}.")
        time.sleep(_PAUSE_S)


def _already(record: DaemonRecord, settings: Settings, sleep_idle_min: float | None) -> Started:
    """The daemon that runs, once it is ready, when it is what is asked for."""
    give_up_at = time.monotonic() + settings.llamacpp_start_timeout_s
    while record.serving is None and time.monotonic() < give_up_at:
        time.sleep(_PAUSE_S)
        record = find_daemon() or record
    if record.version != agent.__version__:
        differ = [f"it is of turbo {record.version}"]
    elif record.serving is None:
        differ = ["it still loads its model"]
    else:
        differ = differences(record.wish, wish_of(settings))
        idle_s = record.serving.sleep_idle_s
        if sleep_idle_min is not None and idle_s != sleep_seconds(sleep_idle_min):
            minutes = "not set" if idle_s is None else f"{idle_s / 60:g}"
            differ.append(f"--sleep-idle is {minutes} there and {sleep_idle_min:g} here")
    if differ:
        raise UsageError(
            f"A daemon runs already (pid {record.supervisor.pid}), and it is another one: "
            + "; ".join(differ),
            fix="`turbo server restart` starts it as you want it.",
        )
    if status_of(record).state == "silent":
        raise ServerError(
            f"The daemon runs already (pid {record.supervisor.pid}), but its llama-server does not "
            "answer.",
            fix="`turbo server restart --force` starts both again.",
        )
    return Started(record=record, already=True)


def _stop(force: bool, say: Say) -> bool:
    record = find_daemon(say)
    if record is None:
        end_left_over(say)
        return False
    users = users_of_the_daemon()
    if users and not force:
        listed = ", ".join(str(pid) for pid in users)
        raise UsageError(
            f"{'A run uses' if len(users) == 1 else f'{len(users)} runs use'} the daemon "
            f"(pid {listed}).",
            fix="Wait for the end, or give --force: what is asked of it then fails.",
        )
    for signum in (signal.SIGTERM, signal.SIGKILL):
        record.supervisor.send(signum)
        give_up_at = time.monotonic() + _STOP_PATIENCE_S
        while record.supervisor.lives() and time.monotonic() < give_up_at:
            time.sleep(_PAUSE_S)
    if record.supervisor.lives():
        raise ServerError(f"The daemon (pid {record.supervisor.pid}) cannot be ended.")
    find_daemon()  # removes the record of one that had to be killed
    end_left_over(say)
    return True


def _since(log: Path, start: int) -> str:
    """What was written to a log after its first `start` bytes."""
    try:
        with log.open("rb") as file:
            file.seek(start)
            return file.read().decode(errors="replace")
    except OSError:
        return ""
