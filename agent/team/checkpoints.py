"""The checkpoints of runs: where they are kept, and how a run goes on from its own.

They are a way to lose less time, never one to lose a run: where there is none that can be used, the
steps of the run are done once more, with the answers that it has already (`memory`). SQLite notices
a damaged page only when its own structure is hit, so what is kept has a digest of its own.
"""

from __future__ import annotations

import asyncio
import hashlib
import sqlite3
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiosqlite
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph.state import CompiledStateGraph

from agent.core.journal import Journal
from agent.team.context import TeamContext
from agent.team.state import Candidate, Comment, Plan, Review, Step, TeamState, Verified
from agent.team.task_file import Task

Graph = CompiledStateGraph[TeamState, TeamContext, TeamState, TeamState]
_LOCKED_S = 1.0
"""How long we wait for others who write; they need milliseconds."""
_DIGEST = 16
"""Bytes."""
_NOT_OURS = {sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
"""What SQLite says of a file that is damaged or has other tables; it helps to begin it anew."""
_COLUMNS = {
    "checkpoints": "thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, type, "
    "checkpoint, metadata",
    "writes": "thread_id, checkpoint_ns, checkpoint_id, task_id, idx, channel, type, value",
}
_STATE_TYPES = (Task, Plan, Step, Candidate, Verified, Review, Comment)


@asynccontextmanager
async def checkpoints(
    path: Path, journal: Journal | None = None
) -> AsyncIterator[AsyncSqliteSaver | None]:
    """The checkpoint database at `path`; it restores only the types of our own state.

    None when it cannot be had; the journal gets a line why. A file that is no such database is
    replaced.
    """

    def notice(text: str) -> None:
        if journal is not None:
            journal.emit("notice", text=text)

    async with AsyncExitStack() as stack:
        saver = None
        try:
            try:
                saver = await _opened(path, stack)
            except _Unusable as error:
                notice(f"{path} is replaced: {error}")
                await asyncio.to_thread(_remove, path)
                saver = await _opened(path, stack)
        except (sqlite3.Error, _Unusable, OSError) as error:
            notice(f"{path} cannot be used, so nothing is checkpointed: {error}")
        yield saver


async def _opened(path: Path, stack: AsyncExitStack) -> AsyncSqliteSaver:
    """Raises _Unusable for a file that only hinders, or another sqlite3.Error."""
    await asyncio.to_thread(path.touch, 0o600)  # its journals get the same mode
    async with AsyncExitStack() as opening:
        connection = await opening.enter_async_context(aiosqlite.connect(path, timeout=_LOCKED_S))
        saver = AsyncSqliteSaver(connection, serde=_checked_serializer())
        try:
            await saver.setup()
            for table, columns in _COLUMNS.items():
                await connection.execute_fetchall(f"SELECT {columns} FROM {table} LIMIT 0")  # noqa: S608 - constants
        except UnicodeDecodeError as error:  # of a message that quotes the damage
            raise _Unusable(f"it is damaged ({error.reason})") from None
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF in _NOT_OURS:
                raise _Unusable(str(error)) from None
            raise
        await stack.enter_async_context(opening.pop_all())
    return saver


class _Unusable(Exception):
    """The file is there and is no database of checkpoints."""


def _remove(path: Path) -> None:
    for ending in ("-wal", "-shm", ""):
        path.with_name(path.name + ending).unlink(missing_ok=True)


class _Checked(JsonPlusSerializer):
    """Puts a digest behind everything that it writes, and believes nothing without it."""

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        """See JsonPlusSerializer."""
        kind, data = super().dumps_typed(obj)
        return kind, data + _digest(kind, data)

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        """See JsonPlusSerializer. Raises ValueError for what has been changed."""
        kind, value = data[0], data[1][:-_DIGEST]
        if data[1][-_DIGEST:] != _digest(kind, value):
            raise ValueError("a checkpoint is not as it was written")
        return super().loads_typed((kind, value))


def _checked_serializer() -> _Checked:
    types = [(kind.__module__, kind.__name__) for kind in _STATE_TYPES]
    return _Checked(allowed_msgpack_modules=types)


def _digest(kind: str, data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=_DIGEST, person=kind.encode()[:16]).digest()


async def take_up(
    graph: Graph, saver: AsyncSqliteSaver, config: RunnableConfig, context: TeamContext
) -> tuple[TeamState, bool] | None:
    """The state that an earlier process of the run left, and whether that was its last one.

    What finished candidates of the round have in common with those that are still to be written is
    put back into the context. None, and nothing is left of it, when there is no checkpoint, when
    it cannot be read, or when git has pruned the commit of a candidate. Raises sqlite3.Error.
    """
    try:
        saved = await graph.aget_state(config)
        state: TeamState = saved.values  # type: ignore[assignment]
        finished = [each for task in saved.tasks for each in _result(task.result)]
    except (ValueError, TypeError):  # what it holds is not of this version
        await saver.adelete_thread(context.workspace.run)
        return None
    candidates = [*state.get("candidates", []), *finished]
    if not state.get("task") or not await _has_commits(candidates, context):
        await saver.adelete_thread(context.workspace.run)
        return None
    context.totals.started += len(candidates)
    for candidate in finished:
        _share(candidate, context)
    # `next` leaves out what is done but not yet part of a checkpoint, and is empty too early
    return state, not saved.tasks


def _result(result: object) -> list[Candidate]:
    """The candidate of a branch that came to its end in a round that did not."""
    return list(result.get("candidates", [])) if isinstance(result, dict) else []


async def _has_commits(candidates: list[Candidate], context: TeamContext) -> bool:
    commits = {each.commit for each in candidates if each.commit is not None}
    there = [await context.workspace.has_commit(commit) for commit in commits]
    return all(there)


def _share(candidate: Candidate, context: TeamContext) -> None:
    race = context.race(candidate.round)
    if candidate.tests is not None:
        tests = asyncio.get_running_loop().create_future()
        tests.set_result(candidate.tests)
        race.verified[candidate.diff] = tests
    if candidate.review is not None:
        race.reviews[candidate.diff] = candidate.review
        if candidate.review.verdict == "accept":
            race.accepted.set()
