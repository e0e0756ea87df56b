"""One invocation of `turbo run`: which tasks, in which repository.

Without a task the packaged demo repository is copied to a temporary folder and its task runs there;
the folder in which the command was started is never touched.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from agent.core.config import Settings, is_the_users, load_settings, secret_values
from agent.core.determinism import with_tier
from agent.core.errors import TaskFileError, UsageError
from agent.core.folders import private_folder, why_elsewhere
from agent.core.journal import Journal
from agent.core.signals import run_until_signal
from agent.core.workspace import create_repository, locate, state_folder
from agent.team.manifest import Manifest
from agent.team.replay import Recording, Replay, find_run
from agent.team.result import Ledger
from agent.team.resuming import run_to_resume
from agent.team.runs import JOURNAL, clear_abandoned
from agent.team.task_file import (
    MOST_BYTES,
    Task,
    find_tasks,
    parse_task,
    read_task,
    task_from_prose,
    too_large,
)
from agent.team.verification import split_command
from agent.team.workflow import RunOptions, run_tasks

_DEMO_NOTICE = (
    "No task named: the demo runs in a temporary repository, which is removed at the end."
)


@dataclass(frozen=True, kw_only=True)
class Invocation:
    """What the command line asks for."""

    tasks: Sequence[str] = ()
    """Task files; ``-`` is standard input."""
    prose: str | None = None
    all_tasks: bool = False
    repository: Path | None = None
    model: Path | None = None
    candidates: int | None = None
    test: str | None = None
    determinism: str | None = None
    apply: bool = False
    dry_run: bool = False

    @property
    def is_demo(self) -> bool:
        """True when nothing names a task."""
        return not self.tasks and self.prose is None and not self.all_tasks


def run_session(invocation: Invocation, journal: Journal, ledger: Ledger) -> None:
    """Run what was asked for; results go to `ledger` as they come.

    Raises TurboError, or Interrupted when a signal ended it.
    """
    if invocation.is_demo and (
        invocation.repository or invocation.apply or invocation.test is not None
    ):
        raise UsageError(
            "--repo, --apply and --test need a task",
            fix="Name a task file, --all for tasks/*.md, or --task and the wish in prose.",
        )
    if invocation.test is not None:
        split_command(invocation.test, "--test", key="")  # refuses it in the name of the option
    if invocation.is_demo:
        with demo_repository() as folder:
            journal.emit(
                "notice",
                text=_DEMO_NOTICE,
            )
            _run(invocation, folder, [str(path) for path in find_tasks(folder)], journal, ledger)
    else:
        repository = locate(invocation.repository or Path.cwd())
        _run(invocation, repository, invocation.tasks, journal, ledger)


def run_replay(name: str, checkout: Path | None, journal: Journal, ledger: Ledger) -> Replay:
    """Run the run `name` of a repository again, as its manifest has it, and compare the two.
    Nothing is put on a branch.

    Raises TurboError, or Interrupted when a signal ended it.
    """
    repository = locate(checkout or Path.cwd())
    folder = find_run(state_folder(repository) / "runs", name)
    manifest, before = Manifest.read(folder), Recording.of_journal(folder / JOURNAL)
    if not before.answers:
        raise UsageError(
            f"Run {manifest.run} got no answer that could be compared",
            fix="Its journal says how it ended; replay another one.",
        )
    journal.emit("notice", text=f"Run {manifest.run} again, from commit {manifest.base[:12]}.")
    settings = _settings_of(manifest, repository, journal)
    options = RunOptions(base=manifest.base, publish=False, replay_of=manifest.run)
    now = Recording()
    journal.listen(now.on_event)
    run_until_signal(run_tasks([manifest.task], repository, settings, journal, options, ledger))
    result = ledger.results[-1]
    if result.exit_code < 3 and result.run:
        again = Manifest.read(folder.with_name(result.run))
        for line in manifest.differences(again):
            journal.emit("notice", text=f"Not the same as then: {line}")
    replay = Replay.of(before, now)
    journal.emit("replay_compared", **replay.event())
    return replay


def run_resume(name: str | None, checkout: Path | None, journal: Journal, ledger: Ledger) -> None:
    """Go on with a run that was killed or interrupted, by default the newest; see `resuming`.

    Raises TurboError, or Interrupted when a signal ended it.
    """
    repository = locate(checkout or Path.cwd())
    manifest = run_to_resume(state_folder(repository) / "runs", name)
    if manifest is None:
        run_until_signal(clear_abandoned(repository))  # of a run that was killed after its end
        journal.emit("notice", text="Every run in this repository is over: nothing to resume.")
        return
    journal.emit("notice", text=f"Run {manifest.run} goes on, from {manifest.base[:12]}.")
    settings = _settings_of(manifest, repository, journal)
    options = RunOptions(apply=manifest.apply, base=manifest.base, resume=manifest.run)
    run_until_signal(run_tasks([manifest.task], repository, settings, journal, options, ledger))


def _settings_of(manifest: Manifest, repository: Path, journal: Journal) -> Settings:
    """The settings of a run, but those of today for what no repository may set: a manifest lies in
    its folder, and whoever gave us that folder could have written it."""
    now = load_settings(repository=repository)
    journal.redactor.hide(secret_values(now))
    kept = {key: value for key, value in manifest.settings.items() if not is_the_users(key)}
    own = {key: value for key, value in now if is_the_users(key)}
    try:
        return Settings(**kept, **own)
    except ValidationError as error:
        raise UsageError(
            f"The manifest of {manifest.run} has settings that this version does not know: "
            f"{error.errors()[0]['loc'][0]}",
            fix="Use the version that wrote it.",
        ) from None


def _run(
    invocation: Invocation,
    repository: Path,
    sources: Sequence[str],
    journal: Journal,
    ledger: Ledger,
) -> None:
    settings, given_way = with_tier(_settings(invocation, repository))
    journal.redactor.hide(secret_values(settings))
    for line in (*given_way, *filter(None, [why_elsewhere()])):
        journal.emit("notice", text=line)
    tasks = [_with_test(task, invocation.test) for task in _load(invocation, repository, sources)]
    options = RunOptions(
        apply=invocation.apply, skip_done=invocation.all_tasks, lasting=not invocation.is_demo
    )
    run_until_signal(run_tasks(tasks, repository, settings, journal, options, ledger))


def _settings(invocation: Invocation, repository: Path) -> Settings:
    overrides = {
        "llamacpp_model_path": invocation.model,
        "turbo_candidates": invocation.candidates,
        "turbo_determinism": invocation.determinism,
        "dry_run": True if invocation.dry_run else None,
    }
    return load_settings(repository=repository, overrides=overrides)


def _load(invocation: Invocation, repository: Path, sources: Sequence[str]) -> list[Task]:
    if invocation.prose is not None:
        return [task_from_prose(invocation.prose)]
    if invocation.all_tasks:
        found = find_tasks(repository)
        if not found:
            raise TaskFileError(
                str(repository / "tasks"),
                "no task found",
                fix="Write one as tasks/NAME.md; README shows the form.",
            )
        return [read_task(path) for path in found]
    return [_read_one(source) for source in sources]


def _read_one(source: str) -> Task:
    if source != "-":
        return read_task(Path(source))
    data = sys.stdin.buffer.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise too_large("-")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise TaskFileError("-", "standard input is not UTF-8") from None
    has_front_matter = text.removeprefix("\ufeff").startswith("---")
    return parse_task(text, source="-") if has_front_matter else task_from_prose(text, source="-")


def _with_test(task: Task, test: str | None) -> Task:
    if test is None:
        return task
    places = tuple((what, line) for what, line in task.lines if what != "test")
    return task.model_copy(update={"test": test, "lines": places})


@contextlib.contextmanager
def demo_repository() -> Iterator[Path]:
    """A fresh git repository with the packaged demo in it; removed at the end."""
    packaged = Path(__file__).parent.parent / "demo" / "repository"
    with private_folder() as parent:
        folder = parent / "textkit"
        shutil.copytree(packaged, folder, ignore=shutil.ignore_patterns("__pycache__"))
        create_repository(folder, message="The demo repository")
        yield folder
