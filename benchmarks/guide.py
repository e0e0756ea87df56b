"""What each optimisation gives against its absence: all figures of docs/performance.md.

    python benchmarks/guide.py [--repeat 4] [--only flash-attention,threads] [--markdown FILE]
        [--json FILE] [--list]

Every row has two sides that differ in one thing. Their rounds alternate (ABBA), each on a server of
its own that is started for the round by our backend, as a run starts it, with prefixes in a folder
that is removed at the end. Figures are medians with the least and the greatest value; the gain is
the median of the ratios within each pair of neighbours. A verdict other than "no difference within
the spread" needs every value of one side to be better than every value of the other, which four
pairs do by chance once in 35 times. What is timed is seen from outside, as in `turbo bench`.

The model has 8 of the 24 layers of Qwen2.5-Coder-0.5B in Q8_0 and random weights; quantisations are
compared on 4 of the 32 layers of Phi-3-mini, whose rows divide into the blocks of every one of them
and whose layers are most of the file. Speculation is shown on the embedded model, too, since random
weights never copy. With the whole of a real model ratios differ; the command is there to be run
with `--model FILE` on yours, which leaves the quantisations out.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.core.config import Settings, embedded_model
from agent.core.errors import TurboError
from agent.core.sampling import CODING
from agent.measure.bench_figures import Spread, gains, verdict
from agent.measure.bench_prompts import fitting, new_mark
from agent.measure.bench_report import this_machine
from agent.measure.bench_sides import Side
from agent.measure.bench_work import HELLO, ask, ask_all, writing_rate
from agent.measure.model_shapes import SHAPES
from agent.measure.shape_writer import write_shape_model
from benchmarks.guide_cases import CASES, EMBEDDED, GENERAL, QUANTISED, UNITS, Case, Key, Way

LEAST_PAIRS = 3
"""With two, the sides keep apart by chance once in three times."""
PROMPT, ANSWER = 900, 48
"""Tokens that prompts share, and of answers."""


class Models:
    """Model files by what a way calls them, written when first asked for."""

    def __init__(self, folder: Path, general: Path | None) -> None:
        self._folder = folder
        self._general = general

    def path(self, name: str) -> Path:
        """The file of `name`."""
        if name == EMBEDDED:
            return embedded_model()
        if name == GENERAL and self._general is not None:
            return self._general
        shape, quantisation, layers = name.split(":")
        path = self._folder / f"{name.replace(':', '-')}-layers.gguf"
        if not path.exists():
            say(f"writing {path.name}")
            write_shape_model(SHAPES[shape], path, quantisation=quantisation, layers=int(layers))
        return path


@dataclass(frozen=True, kw_only=True)
class Row:
    """One figure of one case."""

    case: Case
    key: Key
    base: Spread
    other: Spread

    @property
    def gain(self) -> Spread:
        """How many times better `other` is."""
        return gains(self.base, self.other, higher_is_better=UNITS[self.key] == "tokens/s")

    @property
    def verdict(self) -> str:
        """In words."""
        if len(self.gain.values) < LEAST_PAIRS:
            return "too few pairs to tell"
        said = verdict(self.base, self.other, higher_is_better=UNITS[self.key] == "tokens/s")
        if self.key == "memory":
            return {"faster": "less", "slower": "more"}.get(said, said)
        return said

    @property
    def cells(self) -> list[str]:
        """A line of the table."""
        return [
            self.case.claim,
            f"{self.key}, {UNITS[self.key]}",
            f"{self.case.base.label}: {shown(self.base)}",
            f"{self.case.other.label}: {shown(self.other)}",
            f"{shown(self.gain)} x",
            self.verdict,
            f"`--only {self.case.name}`",
        ]


HEAD = ("claim", "figure", "one side", "the other side", "gain", "verdict", "guide.py")


async def measure(way: Way, keys: Sequence[Key], models: Models, folder: Path) -> dict[Key, float]:
    """One round of one side."""
    settings = Settings(llamacpp_model_path=models.path(way.model), **way.settings)
    side = Side("guide", settings, folder)
    found: dict[Key, float] = {}
    began = time.perf_counter()
    async with side.open() as opened:
        backend = opened.backend
        found["ready"] = (await ask(backend, HELLO, 1)).ended - began
        prompts = await fitting(backend, wanted=PROMPT, answer=ANSWER)
        phases = prompts.of(new_mark())
        plan, coder = phases["plan"][0], phases["candidates"][0]
        sampling = CODING.warmer(way.temperature)
        began = time.perf_counter()
        first = await ask(backend, plan, ANSWER, sampling=sampling)
        found["reading"] = first.computed / first.first_token_s
        if way.known:
            first = await ask(backend, plan, ANSWER, sampling=sampling)
        found["first token"] = first.first_token_s
        notes: list[str] = []
        found |= writing_rate("writing", [first], notes)  # type: ignore[arg-type]
        if {"writing, 4 at once", "plan and 4 candidates"} & set(keys):
            four = await ask_all(backend, [coder] * 4, ANSWER, alike=True)
            found["plan and 4 candidates"] = time.perf_counter() - began
            found |= writing_rate("writing, 4 at once", four, notes)  # type: ignore[arg-type]
        for note in notes:
            say(f"  {note}")
        found["memory"] = side.memory()["server_memory"]
    if "first token after a restart" in keys:
        async with side.open() as opened:
            await ask(opened.backend, HELLO, 1)
            again = await ask(opened.backend, plan, 1)
            found["first token after a restart"] = again.first_token_s
    return found


async def run(cases: Sequence[Case], repeat: int, models: Models, folder: Path) -> list[Row]:
    """All cases, the sides of each in turn."""
    rows = []
    for case in cases:
        values: tuple[list[dict[Key, float]], ...] = ([], [])
        for number in range(1, repeat + 1):
            say(f"{case.name}: {number} of {repeat}")
            sides = list(zip((case.base, case.other), values, strict=True))
            # Whoever comes second may find the machine warmer: each is second as often as first.
            for way, found in sides if number % 2 else reversed(sides):
                own = folder / f"{case.name}-{way.label}-{number}".replace("/", "-")
                own.mkdir()
                found.append(await measure(way, case.keys, models, own))
        for key in case.keys:
            base, other = ([x[key] for x in side if key in x] for side in values)
            if not (base and other):
                continue  # answers were too short to tell, which has been said
            rows.append(
                Row(case=case, key=key, base=Spread(tuple(base)), other=Spread(tuple(other)))
            )
            say("  " + " | ".join(rows[-1].cells[1:6]))
    return rows


def shown(spread: Spread) -> str:
    def number(value: float) -> str:
        return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"

    if len(spread.values) == 1:
        return number(spread.median)
    return f"{number(spread.median)} ({number(spread.low)} to {number(spread.high)})"


def document(rows: Sequence[Row], repeat: int, command: str) -> str:
    """In Markdown."""
    table = [f"| {' | '.join(cells)} |" for cells in (HEAD, ["---"] * len(HEAD))]
    table += [f"| {' | '.join(row.cells)} |" for row in rows]
    about = [
        f"{this_machine().words}; medians of {repeat} (least to greatest)",
        f"shared prompt of about {PROMPT} tokens, answers of at most {ANSWER}",
        f"`{command}`",
    ]
    return "\n".join([*(f"- {line}" for line in about), "", *table, ""])


def as_object(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """For JSON."""
    return [
        {
            "case": row.case.name,
            "claim": row.case.claim,
            "figure": row.key,
            "unit": UNITS[row.key],
            "sides": {
                row.case.base.label: list(row.base.values),
                row.case.other.label: list(row.other.values),
            },
            "gain": list(row.gain.values),
            "verdict": row.verdict,
        }
        for row in rows
    ]


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def chosen(text: str) -> list[Case]:
    names = text.split(",")
    if unknown := set(names) - {case.name for case in CASES}:
        raise argparse.ArgumentTypeError(f"no such case: {', '.join(unknown)}; see --list")
    return [case for case in CASES if case.name in names]


def positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is no whole number above 0")
    return int(text)


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeat", type=positive, default=4, help="pairs per case")
    parser.add_argument("--only", type=chosen, default=list(CASES), help="names, see --list")
    parser.add_argument("--model", type=Path, help="a GGUF file instead of the 0.5B shape")
    parser.add_argument("--markdown", type=Path, help="where the table goes besides here")
    parser.add_argument("--json", type=Path, help="where every value goes")
    parser.add_argument("--list", action="store_true", help="name the cases and end")
    return parser


def main() -> None:
    arguments = parser().parse_args()
    cases: list[Case] = arguments.only
    if arguments.list:
        print("\n".join(f"{case.name:30} {case.claim}" for case in cases))
        return
    if arguments.model is not None:
        cases = [
            x for x in cases if not x.base.model.startswith(QUANTISED.split(":", maxsplit=1)[0])
        ]
    command = " ".join(["python", "benchmarks/guide.py", *sys.argv[1:]])
    with tempfile.TemporaryDirectory(prefix="turbo-guide-") as name:
        models = Models(Path(name), arguments.model)
        try:
            rows = asyncio.run(run(cases, arguments.repeat, models, Path(name)))
        except TurboError as error:
            sys.exit(str(error))
    text = document(rows, arguments.repeat, command)
    print(text)
    if arguments.markdown is not None:
        arguments.markdown.write_text(text, encoding="utf-8")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(as_object(rows), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
