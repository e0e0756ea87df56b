"""What a run has paid for already: finished answers of the model and results of test commands.

Each is a line of a file in the folder of the run, written as soon as it is there, and found again
by a digest of everything that determines it. The line has a digest of its own, too: one that a disk
or an editor has changed is not believed, for it could make red tests green. A run that was killed
and goes on asks here first; a run that was not killed finds nothing here that it has not asked for
itself, and does not look.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from agent.core.backend_manager import Reply, Request, Timing, Usage
from agent.core.json_answer import UnfitAnswer
from agent.core.json_lines import cut_half_line, read_objects
from agent.core.redaction import Redactor
from agent.team.state import Verified


class Memory:
    """The answers of one run. Without a path nothing is kept, and never what holds a secret: a run
    that goes on asks for that again."""

    def __init__(self, path: Path | None = None, redactor: Redactor | None = None) -> None:
        self._path = path
        self._redactor = redactor or Redactor()
        self._known: dict[str, dict[str, Any]] = {}
        self._new: dict[str, dict[str, Any]] = {}

    @classmethod
    def at(cls, path: Path, redactor: Redactor | None = None) -> Memory:
        """The memory that is kept in `path`, with what an earlier process of the run left there.

        Whatever cannot be read is asked for again.
        """
        memory = cls(path, redactor)
        with contextlib.suppress(OSError):
            cut_half_line(path)
            memory._known = dict(filter(None, map(_whole, read_objects(path))))
        return memory

    def begin_again(self) -> None:
        """What this process was answered counts as known too: its steps are done once more."""
        self._known |= self._new

    def reply(self, request: Request) -> Reply | None:
        """The kept answer to `request`, at no cost; None when there is none.

        Raises UnfitAnswer as the request did.
        """
        kept = self._known.get(_of_request(request))
        if kept is None:
            return None
        if "unfit" in kept:
            raise UnfitAnswer(kept["unfit"], excerpt=kept["excerpt"], usage=Usage())
        return Reply(**kept, usage=Usage(), timing=Timing())

    def keep_reply(self, request: Request, reply: Reply) -> None:
        """Keep a whole answer."""
        kept = {"text": reply.text, "finish": reply.finish, "seed": reply.seed}
        self._keep(_of_request(request), kept)

    def keep_unfit(self, request: Request, error: UnfitAnswer) -> None:
        """Keep that the model's answer to `request` was of no use."""
        self._keep(_of_request(request), {"unfit": error.message, "excerpt": error.excerpt})

    def tests(self, diff: str, command: Sequence[str]) -> Verified | None:
        """The kept result of a test command on the tree that `diff` makes of the base."""
        kept = self._known.get(_of_tests(diff, command))
        return None if kept is None else Verified.model_validate(kept)

    def keep_tests(self, diff: str, command: Sequence[str], result: Verified) -> None:
        """Keep a test result, but none that only tells that the time was up."""
        if result.exit_code is not None:
            self._keep(_of_tests(diff, command), result.model_dump())

    def _keep(self, key: str, value: Mapping[str, Any]) -> None:
        value = self._new[key] = dict(value)
        if self._path is None or self._redactor.data(value) != value:
            return
        line = json.dumps({"key": key, "kept": value, "digest": _digest(key, value)}) + "\n"
        with contextlib.suppress(OSError):  # what cannot be kept is asked for again
            handle = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                os.write(handle, line.encode())
            finally:
                os.close(handle)


def _whole(line: Mapping[str, Any]) -> tuple[str, dict[str, Any]] | None:
    """Key and value of a line that is as it was written."""
    key, value = line.get("key"), line.get("kept")
    if not isinstance(key, str) or not isinstance(value, dict):
        return None
    return (key, value) if line.get("digest") == _digest(key, value) else None


def _of_request(request: Request) -> str:
    return _digest(
        request.prompt.system,
        request.prompt.user,
        asdict(request.sampling),
        request.max_tokens,
        request.json_schema,
    )


def _of_tests(diff: str, command: Sequence[str]) -> str:
    return _digest("tests", diff, list(command))


def _digest(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
