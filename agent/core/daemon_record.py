"""What the daemon says of itself to other programs: one file, readable by us alone.

One user has one daemon. It holds a lock for as long as it lives, so that its record can be told
from one that a killed daemon left behind, whoever has its pid now.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from agent.core.errors import ServerError
from agent.core.folders import cache_folder
from agent.core.held_file import held_note, held_notes, hold, is_held, take_abandoned
from agent.core.process_id import ProcessId
from agent.core.restore_probe import Restore

_FOLDER, _RECORD, _LOCK, _STARTER = "daemon", "daemon.json", "daemon.lock", "starter.lock"
_ANSWERED = "answered"
_USER = "user"
_RECORD_WITHIN_S = 2.0
"""A daemon writes its record right after it has taken the lock."""
_PAUSE_S = 0.02


class Serving(BaseModel):
    """The llama-server of the daemon, once it is ready."""

    model_config = ConfigDict(frozen=True)

    process: ProcessId
    starts: int
    """1 for the first server of the daemon; the others followed one that ended."""
    reason: str
    """Why the one before ended; empty for the first."""
    log: Path
    url: str
    api_key: str
    description: str
    """Build and threads."""
    build: str
    argv: tuple[str, ...]
    """The command line, but for what puts the server to sleep."""
    model: Path
    model_sha256: str
    slots: int
    context: int
    """Tokens of one slot, as served."""
    sleep_idle_s: int | None
    """Seconds without a request after which the server gives its memory back."""
    slot_dir: Path | None
    """Where the server saves slots."""
    layout: str
    """See `kv_layout`."""
    restore: Restore
    """What saved slots are good for."""


class DaemonRecord(BaseModel):
    """The daemon of now."""

    model_config = ConfigDict(frozen=True)

    version: str
    """Of the program; another one may write other records."""
    supervisor: ProcessId
    """The process that starts the server again when it ends."""
    since: float = 0.0
    """Seconds since the epoch."""
    wish: dict[str, str] = {}
    """What was asked for when it was started; see `daemon_wish`."""
    serving: Serving | None = None
    """None while the first server loads."""

    def write(self) -> None:
        """Make this the record. Raises ServerError when it cannot be written."""
        folder = daemon_folder()
        try:
            handle, name = tempfile.mkstemp(dir=folder, prefix=".new-")  # readable by us alone
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(self.model_dump_json(indent=1) + "\n")
            Path(name).replace(folder / _RECORD)
        except OSError as error:
            raise _unwritable(folder, error) from None


@contextmanager
def being_the_daemon() -> Iterator[bool]:
    """Be the daemon as long as the block lasts; False when another one is. The record that an
    earlier one left behind is gone then, and so is ours at the end."""
    folder = daemon_folder()
    with _locked(folder / _LOCK) as ours:
        if ours:
            (folder / _RECORD).unlink(missing_ok=True)
        try:
            yield ours
        finally:
            if ours:
                (folder / _RECORD).unlink(missing_ok=True)


@contextmanager
def being_the_starter(*, patience_s: float) -> Iterator[None]:
    """Start or stop the daemon; others who want to wait until the block ends.

    Raises ServerError when that takes them longer than `patience_s`.
    """
    path = daemon_folder() / _STARTER
    with _locked(path, patience_s=patience_s) as ours:
        if not ours:
            raise ServerError(
                f"The daemon has been started or stopped by somebody else for {patience_s:g} s.",
                fix="End the other `turbo server start`, `stop` or `restart`.",
            )
        yield


def daemon_lives() -> bool:
    """Whether there is one, as far as that can be told."""
    with contextlib.suppress(OSError):
        return is_held(daemon_folder() / _LOCK)
    return False


def find_daemon(notice: Callable[[str], None] = lambda _: None) -> DaemonRecord | None:
    """The record of the daemon that lives; None when there is none. What a killed one left behind
    is removed, and `notice` gets a line about it.

    Raises ServerError when one lives whose record cannot be read.
    """
    try:
        folder = daemon_folder()
    except ServerError:
        return None
    give_up_at = time.monotonic() + _RECORD_WITHIN_S
    while daemon_lives():
        record = read_record()
        if record is not None and record.supervisor.lives():
            return record
        if time.monotonic() > give_up_at:
            raise ServerError(
                f"A daemon runs, but {folder / _RECORD} does not tell which.",
                fix="End that `turbo server run` process by hand and start the daemon again.",
            )
        time.sleep(_PAUSE_S)
    if (folder / _RECORD).exists():
        with being_the_daemon() as ours:
            if ours:
                notice("The last daemon was killed; what it left behind is removed.")
    return None


def read_record() -> DaemonRecord | None:
    """The record, whether or not its daemon lives; None when there is none that makes sense.
    Of another version's only what says who it is."""
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        data = json.loads((daemon_folder() / _RECORD).read_bytes())
        try:
            return DaemonRecord.model_validate(data)
        except ValidationError:
            known = {"version": f"other than {data['version']}", "supervisor": data["supervisor"]}
            return DaemonRecord.model_validate(known)
    return None


@contextmanager
def using_the_daemon() -> Iterator[None]:
    """Tell others that a run uses the daemon as long as the block lasts."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            for _ in take_abandoned(daemon_folder(), _USER):
                pass  # of runs that were killed
            stack.enter_context(held_note(daemon_folder(), _USER, str(os.getpid())))
        yield


def users_of_the_daemon() -> list[int]:
    """The pids of all runs that use it."""
    return sorted(int(pid) for pid in held_notes(daemon_folder(), _USER) if pid.isdigit())


def note_answer(folder: Path) -> None:
    """Tell the daemon of that folder that its server has answered a request."""
    with contextlib.suppress(OSError):
        (folder / _ANSWERED).touch()


def last_answer() -> float:
    """When a run was last answered by the daemon's server, in seconds since the epoch; 0: never."""
    with contextlib.suppress(OSError):
        return (daemon_folder() / _ANSWERED).stat().st_mtime
    return 0.0


def daemon_folder() -> Path:
    """The folder of lock and record. Raises ServerError when there is none that others find."""
    folder = cache_folder(_FOLDER, private=True)
    if folder.name != _FOLDER:  # one of a random name: neither cache nor temporary folder will do
        folder.rmdir()
        raise ServerError(
            "A daemon needs a folder for its record, and the cache cannot be written.",
            fix="Set XDG_CACHE_HOME to a folder that can.",
        )
    return folder


@contextmanager
def _locked(path: Path, *, patience_s: float = 0.25) -> Iterator[bool]:
    with contextlib.ExitStack() as stack:
        try:
            ours = stack.enter_context(hold(path, patience_s=patience_s))
        except OSError as error:
            raise _unwritable(path.parent, error) from None
        yield ours


def _unwritable(folder: Path, error: OSError) -> ServerError:
    return ServerError(
        f"The folder of the daemon, {folder}, cannot be used: {error.strerror or error}",
        fix="Make room there or make it writable; locks need a disk of this machine "
        "(XDG_CACHE_HOME chooses another folder).",
    )
