"""Locks by which several of our processes share the slots of one server.

One file per slot under ``flock``, so that a lock dies with whoever holds it, SIGKILL included. The
file also carries the stamp of the last user: the prefix that we left in a slot is gone once
somebody else used it.

Where locks cannot be had (no ``fcntl``, a folder that cannot be written, a file system without
them) every method works as if we were alone; whoever grants a slot asks the server as well.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


class SlotLocks:
    """The locks of one server; each instance is a user of its own, also within one process."""

    def __init__(self, folder: Path, server: str) -> None:
        """`folder` is shared by all users and made when needed. `server` is the server's URL:
        one server under two spellings would have two sets of locks."""
        self._folder = folder
        self._server = hashlib.sha256(server.encode()).hexdigest()[:16]
        # The process is there for people who look into the file; the rest makes it unique.
        self._stamp = f"{os.getpid()} {secrets.token_hex(8)}\n".encode()
        self._handles: dict[int, int] = {}

    def try_acquire(self, slot: int) -> bool:
        """Lock a slot without waiting. False when it is locked, be it by ourselves."""
        if fcntl is None:
            return True
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            # Opened anew each time: a file that was removed meanwhile locks nobody out.
            handle = os.open(self.path(slot), os.O_RDWR | os.O_CREAT, 0o600)
        except OSError:
            return True
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(handle)
            return not isinstance(error, BlockingIOError)
        self._handles[slot] = handle
        return True

    def used_by_others(self, slot: int) -> bool:
        """Whether a slot that we locked may have been used by others since our last `stamp`."""
        if slot not in self._handles:
            return False
        try:
            return os.pread(self._handles[slot], len(self._stamp) + 1, 0) != self._stamp
        except OSError:
            return True

    def stamp(self, slot: int) -> None:
        """Tell the next users of a slot that we locked that we used it. Comes before the use, so
        that it is there even if we are killed."""
        if slot in self._handles:
            # Emptied first: on a full disk no stamp is left, which nobody takes for their own.
            with contextlib.suppress(OSError):
                os.ftruncate(self._handles[slot], 0)
                os.pwrite(self._handles[slot], self._stamp, 0)

    def release(self, slot: int) -> None:
        """Unlock a slot; nothing when it is not locked by us."""
        handle = self._handles.pop(slot, None)
        if handle is not None:
            os.close(handle)

    def path(self, slot: int) -> Path:
        """The file that is locked for a slot; it may not exist yet."""
        return self._folder / f"slot-{self._server}-{slot}.lock"

    def close(self) -> None:
        """Unlock all slots."""
        for slot in list(self._handles):
            self.release(slot)
