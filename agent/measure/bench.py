"""A benchmark: the same work on one backend or several, in turn, several times.

The rounds of the sides alternate, so that whatever else the machine does hits all of them; a side
is closed before the next one is opened, so that they never share memory or cores.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from agent.core.config import Settings
from agent.core.errors import BackendError
from agent.core.folders import cache_folder, private_folder
from agent.measure.bench_figures import Spread
from agent.measure.bench_prompts import Prompts, fitting
from agent.measure.bench_run import Runner, RunNotAccepted
from agent.measure.bench_sides import ModelFacts, Side, differences, own_memory
from agent.measure.bench_work import Work, do_round

Say = Callable[[str], None]
"""Gets a line for whoever waits."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One side that is to be measured."""

    name: str
    settings: Settings


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much a benchmark does."""

    repeat: int = 3
    prompt: int = 1800
    """Tokens that all prompts of a repository share."""
    answer: int = 64
    """Most tokens of an answer."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One side."""

    name: str
    description: str
    model: ModelFacts
    figures: dict[str, Spread]
    """By the keys of measures; what makes no sense there is missing."""


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What was measured."""

    sides: tuple[Measured, ...]
    repeat: int
    prompt: int
    """Tokens that the prompts share, by the first side's count."""
    answer: int
    at_once: int
    notes: tuple[str, ...]
    """What whoever reads the figures must know."""


@dataclass
class _Collected:
    """One side while it is measured."""

    side: Side
    description: str
    model: ModelFacts
    values: dict[str, list[float]] = field(default_factory=dict)

    def add(self, found: dict[str, float]) -> None:
        for key, value in found.items():
            self.values.setdefault(key, []).append(value)

    def measured(self) -> Measured:
        figures = {key: Spread(tuple(values)) for key, values in self.values.items()}
        return Measured(
            name=self.side.name, description=self.description, model=self.model, figures=figures
        )


async def run_bench(
    sides: Sequence[Asked], size: Size, say: Say, *, runner: Runner | None = None
) -> Bench:
    """Measure each of `sides`, and whole runs where there is a `runner`.

    Of several sides, an Ollama that cannot be used is left out and `notes` say how to start it.
    Raises an EngineError.
    """
    notes: list[str] = []
    with private_folder(cache_folder("bench")) as folder:
        there, prompts = await _look(sides, size, folder, say, notes)
        at_once = max(each.settings.llamacpp_parallel for each in sides)
        work = Work(prompts=prompts, answer=size.answer, at_once=at_once)
        for number in range(1, size.repeat + 1):
            for each in there:
                say(f"{each.side.name}: requests, {number} of {size.repeat}")
                done = await do_round(each.side.open, work, each.side.memory)
                each.add(done.values)
                if runner is None:
                    each.add(own_memory())
                notes += (f"{each.side.name}: {line}" for line in done.notes)
        if runner is not None:
            await _whole_runs(there, runner, size, say, notes)
    return Bench(
        sides=tuple(each.measured() for each in there),
        repeat=size.repeat,
        prompt=prompts.tokens,
        answer=size.answer,
        at_once=at_once,
        notes=tuple(dict.fromkeys(notes)),
    )


async def _look(
    sides: Sequence[Asked], size: Size, folder: Path, say: Say, notes: list[str]
) -> tuple[list[_Collected], Prompts]:
    """The sides that are there, and prompts that fit all of them."""
    there: list[_Collected] = []
    prompts: Prompts | None = None
    for asked in sides:
        own = folder / asked.name.replace(" ", "-")
        own.mkdir()
        side = Side(asked.name, asked.settings, own)
        try:
            async with side.look(say) as opened:
                model = await side.facts(opened)
                prompts = await fitting(
                    opened.backend, wanted=size.prompt, answer=size.answer, before=prompts
                )
        except BackendError as error:
            if side.backend != "ollama" or len(sides) == 1:
                raise
            notes.append(f"Ollama was not measured: {error.message}\n{how_to_start(side.settings)}")
            say(notes[-1])
            continue
        there.append(_Collected(side, opened.description, model))
    if prompts is None:  # an only side raises, and llama-server is always there
        raise BackendError("None of the backends could be used.")
    if len({each.side.backend for each in there}) > 1:
        for line in differences([(each.side.name, each.model) for each in there]):
            notes.append(line)
            say(f"Warning: {line}")
    return there, prompts


async def _whole_runs(
    there: Sequence[_Collected], runner: Runner, size: Size, say: Say, notes: list[str]
) -> None:
    """One run of each side that is not counted, then those that are, in turn."""
    able = list(there)
    for number in range(size.repeat + 1):
        for each in tuple(able):
            which = f"{number} of {size.repeat}" if number else "one that is not counted"
            say(f"{each.side.name}: a whole run, {which}")
            try:
                seconds = await runner.run(each.side.settings)
            except RunNotAccepted as outcome:
                notes.append(f"{each.side.name}: no whole run was measured: {outcome}")
                able.remove(each)
                continue
            if number:
                each.add({"run": seconds} | own_memory())


def how_to_start(settings: Settings) -> str:
    """The commands that make OLLAMA_MODEL answer at OLLAMA_LOCAL."""
    address = settings.ollama_local.removeprefix("http://")
    host = "" if address.rstrip("/") == "127.0.0.1:11434" else f"OLLAMA_HOST={address} "
    return (
        "To measure it, too:\n"
        f"  {host}ollama serve\n"
        f"  {host}ollama pull {settings.ollama_model}\n"
        "and run this again. OLLAMA_MODEL names another model, OLLAMA_LOCAL another address."
    )
