"""The name of a run, its workspace, and what is kept of earlier ones."""

from __future__ import annotations

import contextlib
import secrets
import shutil
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path

from agent.core.errors import UsageError
from agent.core.held_file import hold, is_held
from agent.core.workspace import Workspace

JOURNAL = "journal.jsonl"
"""In the folder of a run."""
MANIFEST = "manifest.json"
TASK = "task.json"
"""The task word for word, of a run that is not over, where the manifest leaves a secret out."""
ANSWERS = "answers.jsonl"
"""What a run that is not over would have to pay for again."""
CHECKPOINTS = "checkpoints.sqlite"
"""In the folder of a run, so that runs at the same time do not wait for each other."""
_REMOVED = "removed-"
KEPT_RUNS = 50
"""Runs whose journal stays, with what those need that did not come to their end. A session of more
tasks than this keeps those of all its own."""


def new_run_name() -> str:
    """Sortable by time, unique, fit for a branch name."""
    return f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"


@asynccontextmanager
async def open_workspace(
    repository: Path, run: str, *, base: str | None = None
) -> AsyncIterator[Workspace]:
    """The workspace of a run, by default on the last commit; its worktrees are removed at the
    end."""
    workspace = await Workspace.open(repository, run=run, base=base)
    try:
        yield workspace
    finally:
        await workspace.close()


async def clear_abandoned(repository: Path) -> None:
    """Clear away the worktrees that killed runs left."""
    async with open_workspace(repository, new_run_name()):
        pass


@contextmanager
def held_run(folder: Path) -> Iterator[None]:
    """Keep other processes from the run in `folder`, as long as the block lasts and we live.

    What is held is its journal. Raises UsageError when the run goes on in another process.
    """
    with ExitStack() as stack:
        ours = True
        with contextlib.suppress(OSError):  # no locks here, or the journal cannot be written either
            make_private(folder.parent.parent)
            folder.mkdir(parents=True, exist_ok=True)
            ours = stack.enter_context(hold(folder / JOURNAL))
        if not ours:
            raise UsageError(
                f"Run {folder.name} goes on in another process",
                fix="Wait for its end, or end it with Ctrl-C where it runs.",
            )
        yield


def make_private(state: Path) -> None:
    """Make the folder of runs and checkpoints one that only we can read: what is asked and answered
    stands in there. Raises OSError when it cannot be made."""
    state.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(OSError):  # somebody else's: then it is up to them
        state.chmod(0o700)


def is_alive(folder: Path) -> bool:
    """Whether a process carries out the run in `folder` now."""
    try:
        return is_held(folder / JOURNAL)
    except OSError:
        return False


def tidy_up(folder: Path, *, kept: int = KEPT_RUNS) -> None:
    """Forget what the run in `folder`, which is over and still held, needed to go on, and all but
    the `kept` newest runs.

    A run that is not over keeps its checkpoint and its answers as long as its journal.
    """
    for path in (folder / ANSWERS, folder / TASK, *folder.glob(f"{CHECKPOINTS}*")):
        with contextlib.suppress(OSError):  # the run is over whatever the disk says now
            path.unlink()
    for old in _old(folder.parent, kept):
        with contextlib.suppress(UsageError), held_run(old):
            forget_run(old)
    _sweep(folder.parent.parent)


def forget_run(folder: Path) -> None:
    """Remove the folder of a run that is held. It goes as a whole: who waits to hold it next begins
    with an empty one, from which nothing is removed any more."""
    state = folder.parent.parent
    with contextlib.suppress(OSError):
        folder.rename(state / f"{_REMOVED}{secrets.token_hex(8)}")
    _sweep(state)


def _sweep(state: Path) -> None:
    """Remove the folders of runs that were renamed for it, by us or by somebody who was killed."""
    for removed in state.glob(f"{_REMOVED}*"):
        shutil.rmtree(removed, ignore_errors=True)


def _old(runs: Path, kept: int) -> list[Path]:
    found = sorted(path for path in runs.iterdir() if path.is_dir())[:-kept]
    return [path for path in found if not is_alive(path)]
