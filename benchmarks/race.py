"""What more candidates and repair rounds are worth: the whole team on held-out tasks.

    python benchmarks/race.py [--tasks 12] [--splits family,composition,paraphrase] [--first 1000]
        [--json FILE]

1, 2, 4 and 8 candidates, each without repair (TURBO_ROUNDS=1, TURBO_PLANS=1) and with the defaults,
on the embedded model. The tasks are those of tools/tiny_coder, drawn anew from numbers that nobody
has looked at; *solved* means that the team committed something and that it passes asserts which no
prompt and no test of the repository has shown. All settings get the same tasks, and every task goes
through all settings before the next one, beginning with another setting each time: what else the
machine does hits all of them.

Each setting has one llama-server, which is started before the first task and ends after the last,
and a cache of its own. It has as many slots as candidates, but never more than four: with eight
candidates, four wait for a slot. `waited` is the mean time of a coder from asking for a slot to the
first token that is read or written for it; it includes waiting for another candidate that computes
the prefix for both. Wall seconds are those of the report: from a task in hand to a commit or to
giving up, tests and git included, the start of Python and of the server not. The tests run without
the plugins of pytest that happen to be installed: loading them takes ten times as long as the rest.

This model shows the machinery and not the bet: its answers hardly differ from one another, it
cannot read test output, and its reading and writing cost less than the tests do. With a model that
is worth its name the same columns look different.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from agent.core.config import Settings
from agent.core.errors import TurboError
from agent.core.journal import Journal
from agent.team.result import Ledger, RunResult
from agent.team.task_file import Task, parse_task
from agent.team.workflow import Engine, RunOptions, Session, run_task
from benchmarks.schedules import positive, say, table
from tools.tiny_coder.evaluate import SPLITS, EvaluationTask, draw_tasks, is_right
from tools.tiny_coder.team_run import create_repository, git, task_file_text
from tools.tiny_coder.words import Split

MOST_SLOTS = 4
NAMES = {split.name.lower(): split for split in SPLITS}


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One way of running the team."""

    candidates: int
    repair: bool

    @property
    def slots(self) -> int:
        """Of its server."""
        return min(self.candidates, MOST_SLOTS)

    @property
    def settings(self) -> Settings:
        """Everything else is as it comes."""
        tries: dict[str, Any] = {} if self.repair else {"turbo_rounds": 1, "turbo_plans": 1}
        return Settings(turbo_candidates=self.candidates, llamacpp_parallel=self.slots, **tries)

    def __str__(self) -> str:
        many = "candidate" if self.candidates == 1 else "candidates"
        return f"{self.candidates} {many}, {'with' if self.repair else 'without'} repair"


SETTINGS = tuple(
    Setting(candidates=count, repair=repair) for repair in (False, True) for count in (1, 2, 4, 8)
)
LEAST = SETTINGS[0]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One task under one setting."""

    setting: Setting
    split: str
    number: int
    status: str
    solved: bool
    wall_s: float
    model_s: float
    """Of them, seconds in which at least one request was under way."""
    started: int
    """Candidates, in all rounds."""
    rounds: int
    """In which at least one candidate came to an end."""
    computed: int
    """Prompt tokens."""
    predicted: int
    waited_s: tuple[float, ...]
    """Per answer of a coder, see above; the ones given up while they waited included."""


class Waits:
    """Listens to the journal for how long coders wait."""

    def __init__(self) -> None:
        self._since: dict[tuple[str, int], float] = {}
        self._seconds: list[float] = []

    def __call__(self, event: str, data: Mapping[str, Any]) -> None:
        """Take note of one event."""
        if event != "progress" or data["role"] not in ("coder", "repair"):
            return
        key, now = (data["role"], data["candidate"]), time.perf_counter()
        if data["phase"] == "queued":
            self._since[key] = now
        elif key in self._since:
            self._seconds.append(now - self._since.pop(key))

    def take(self) -> tuple[float, ...]:
        """All since the last call."""
        now = time.perf_counter()
        seconds = (*self._seconds, *(now - since for since in self._since.values()))
        self._since, self._seconds = {}, []
        return seconds


class Team:
    """The team under one setting, on one server from the first task to the last."""

    def __init__(self, setting: Setting, stack: AsyncExitStack) -> None:
        self.setting = setting
        self._waits = Waits()
        self._journal = Journal((self._waits,))
        self._engine = Engine(setting.settings, self._journal, stack)

    async def open(self, cache: Path) -> None:
        """Start the server. Raises an EngineError."""
        os.environ["XDG_CACHE_HOME"] = str(cache)
        await self._engine.ready()

    async def do(self, task: EvaluationTask) -> Outcome:
        """Let the team do one task in a repository of its own."""
        with tempfile.TemporaryDirectory(prefix="turbo-race-") as name:
            repository = Path(name) / "repository"
            await asyncio.to_thread(create_repository, repository, task.scene)
            session = Session(
                repository=repository,
                settings=self.setting.settings,
                journal=self._journal,
                options=RunOptions(),
                ledger=Ledger(),
                engine=self._engine,
            )
            result = await run_task(wish(task), session)
            if result.exit_code > 1:
                raise RuntimeError(f"{self.setting}, task {task.number}: {result.reason}")
            solved = await asyncio.to_thread(is_solved, task, result, repository)
        return Outcome(
            setting=self.setting,
            split=task.split.value,
            number=task.number,
            status=result.status,
            solved=solved,
            wall_s=result.wall_s,
            model_s=result.busy_s,
            started=result.started,
            rounds=len({candidate.round for candidate in result.candidates}),
            computed=result.usage.computed,
            predicted=result.usage.predicted,
            waited_s=self._waits.take(),
        )


def wish(task: EvaluationTask) -> Task:
    """The task as the team gets it, with a test command that loads no plugins of pytest."""
    read = parse_task(task_file_text(task.scene), source="-")
    return read.model_copy(update={"test": f"env PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 {read.test}"})


def is_solved(task: EvaluationTask, result: RunResult, repository: Path) -> bool:
    """Whether what was committed passes the hidden asserts."""
    if result.commit is None:
        return False
    return is_right(git(repository, "show", f"{result.commit}:{task.change.path}"), task.change)


async def race(tasks: Sequence[EvaluationTask]) -> list[Outcome]:
    """Every task under every setting."""
    outcomes = []
    with tempfile.TemporaryDirectory(prefix="turbo-race-") as name:
        async with AsyncExitStack() as stack:
            teams = [Team(setting, stack) for setting in SETTINGS]
            for number, team in enumerate(teams):
                await team.open(Path(name) / f"cache-{number}")
            for turn, task in enumerate(tasks):
                first = turn % len(teams)
                for team in (*teams[first:], *teams[:first]):
                    outcomes.append(await team.do(task))
                say(told(turn + 1, len(tasks), task, outcomes[-len(teams) :]))
    return outcomes


def told(turn: int, turns: int, task: EvaluationTask, outcomes: Sequence[Outcome]) -> str:
    seconds = sum(x.wall_s for x in outcomes)
    solved = sum(x.solved for x in outcomes)
    about = f"{task.split.value} {task.number}"
    return f"{turn} of {turns}, {about}: solved by {solved} of {len(outcomes)}, {seconds:.1f} s"


def lines(outcomes: Sequence[Outcome]) -> list[str]:
    """The outcomes in Markdown; ratios compare the same tasks."""
    splits = [x.value for x in SPLITS if any(o.split == x.value for o in outcomes)]
    head = ["candidates", "repair", "slots", "solved", *splits]
    head += ["wall s per task", "ratio", "median of ratios", "in the model s", "waited s"]
    head += ["candidates begun", "rounds", "prompt tokens computed", "predicted"]
    least = of(outcomes, LEAST)
    rows = []
    for setting in SETTINGS:
        mine = of(outcomes, setting)
        waits = [seconds for x in mine for seconds in x.waited_s]
        ratios = [x.wall_s / y.wall_s for x, y in zip(mine, least, strict=True)]
        rows.append(
            [
                str(setting.candidates),
                "yes" if setting.repair else "no",
                str(setting.slots),
                solved(mine),
                *(solved([x for x in mine if x.split == split]) for split in splits),
                f"{mean(x.wall_s for x in mine):.2f}",
                f"{sum(x.wall_s for x in mine) / sum(x.wall_s for x in least):.2f}",
                f"{statistics.median(ratios):.2f}",
                f"{mean(x.model_s for x in mine):.2f}",
                f"{mean(waits):.3f}",
                f"{mean(x.started for x in mine):.1f}",
                f"{mean(x.rounds for x in mine):.1f}",
                f"{mean(x.computed for x in mine):,.0f}",
                f"{mean(x.predicted for x in mine):,.0f}",
            ]
        )
    return table(head, rows)


def of(outcomes: Sequence[Outcome], setting: Setting) -> list[Outcome]:
    return [x for x in outcomes if x.setting == setting]


def solved(outcomes: Sequence[Outcome]) -> str:
    return f"{sum(x.solved for x in outcomes)}/{len(outcomes)}"


def mean(values: Any) -> float:
    return statistics.fmean([*values] or [0.0])


def splits(text: str) -> list[Split]:
    wanted = text.replace(",", " ").split()
    if not wanted or set(wanted) - NAMES.keys():
        raise argparse.ArgumentTypeError(f"splits are named {', '.join(NAMES)}")
    return [split for name, split in NAMES.items() if name in wanted]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tasks", type=positive, default=12, help="of each split")
    parser.add_argument("--splits", type=splits, default=",".join(NAMES), help="such as family")
    parser.add_argument("--first", type=positive, default=1000, help="number of the first task")
    parser.add_argument("--json", type=Path, help="where the raw figures go")
    arguments = parser.parse_args()
    # The tests of a task need pytest, which stands beside the Python that runs this.
    os.environ["VIRTUAL_ENV"] = sys.prefix
    by_split = [draw_tasks(x, arguments.tasks, arguments.first) for x in arguments.splits]
    try:
        outcomes = asyncio.run(
            race([task for some in zip(*by_split, strict=True) for task in some])
        )
    except TurboError as error:
        sys.exit(str(error))
    command = shlex.join(["python", "benchmarks/race.py", *sys.argv[1:]])
    about = [
        f"{len(outcomes) // len(SETTINGS)} tasks, the same for all; means per task",
        f"ratio: wall seconds of all tasks, to {LEAST}; beside it the median over the tasks",
        f"8 candidates share {MOST_SLOTS} slots: the others wait",
        f"`{command}`",
    ]
    print("\n".join([*lines(outcomes), "", *(f"- {line}" for line in about)]))
    if arguments.json is not None:
        raw = {"command": command, "outcomes": [asdict(x) for x in outcomes]}
        arguments.json.write_text(json.dumps(raw, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
