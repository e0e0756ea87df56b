"""A benchmark as a table, as Markdown, JSON and CSV."""

from __future__ import annotations

import csv
import io
import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import agent
from agent.core.hardware import read_hardware
from agent.measure.bench import Bench
from agent.measure.bench_figures import MEASURES, Measure, Spread, gains

_HEAD = "figure"


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What figures depend on besides model and settings."""

    system: str
    processor: str
    physical_cores: int
    memory_free_mib: int

    @property
    def words(self) -> str:
        """One line."""
        return (
            f"{self.processor}, {self.physical_cores} cores, {self.memory_free_mib:,} MiB free, "
            f"{self.system}"
        )


def this_machine() -> Machine:
    """The machine that measures."""
    hardware = read_hardware()
    return Machine(
        system=f"{platform.system()} {platform.release()}",
        processor=_processor(),
        physical_cores=hardware.physical_cores,
        memory_free_mib=hardware.memory_available >> 20,
    )


@dataclass(frozen=True, kw_only=True)
class Report:
    """A benchmark and where it came from."""

    bench: Bench
    machine: Machine
    command: str
    title: str = ""
    """What the model stands for, when it is not itself meant."""
    words: Mapping[str, str] = field(default_factory=dict)
    """How a figure was found when it was not simply measured, by the keys of measures."""

    @property
    def heads(self) -> list[str]:
        """Of the table; the last one only when sides are compared."""
        names = [side.name for side in self.bench.sides]
        return [_HEAD, "unit", *names, *([f"{names[0]} against {names[1]}"] if names[1:] else [])]

    def rows(self) -> list[list[str]]:
        """One per figure that any side has."""
        return [
            [self._title(measure), measure.unit, *self._cells(measure)]
            for measure in MEASURES
            if any(measure.key in side.figures for side in self.bench.sides)
        ]

    def facts(self) -> list[str]:
        """What was measured on what."""
        bench = self.bench
        lines = [f"{side.name}: {side.description}" for side in bench.sides]
        lines += [f"{side.name} has the model {side.model.words}" for side in bench.sides]
        lines.append(
            f"{bench.prompt:,} prompt tokens shared, answers of at most {bench.answer} tokens, "
            f"{bench.at_once} at once; median of {bench.repeat} (least to greatest)"
        )
        lines.append(self.machine.words)
        return lines

    def methods(self) -> list[str]:
        """How each figure of the table was measured."""
        shown = {key for side in self.bench.sides for key in side.figures}
        return [f"{measure.title}: {measure.how}" for measure in MEASURES if measure.key in shown]

    def markdown(self) -> str:
        """A document."""
        rule = ["---", "---", *("---:" for _ in self.heads[2:])]
        table = [f"| {' | '.join(row)} |" for row in (self.heads, rule, *self.rows())]
        parts = [f"# {self.title or 'Benchmark'}", "\n".join(f"- {x}" for x in self.facts())]
        parts += ["\n".join(table)]
        parts += [f"> {_quoted(note)}" for note in self.bench.notes]
        parts += ["How it was measured:", "\n".join(f"- {x}" for x in self.methods())]
        parts += [f"`{self.command}`"]
        return "\n\n".join(parts) + "\n"

    def as_object(self) -> dict[str, Any]:
        """Values for JSON; seconds, tokens, MiB as the unit says."""
        return {
            "version": agent.__version__,
            "command": self.command,
            "title": self.title,
            "machine": asdict(self.machine),
            "repeat": self.bench.repeat,
            "shared_prompt_tokens": self.bench.prompt,
            "answer_tokens": self.bench.answer,
            "at_once": self.bench.at_once,
            "sides": [
                {
                    "name": side.name,
                    "description": side.description,
                    "model": asdict(side.model),
                    "figures": {
                        measure.key: _figure(measure, side.figures[measure.key])
                        for measure in MEASURES
                        if measure.key in side.figures
                    },
                }
                for side in self.bench.sides
            ],
            "gains": {
                measure.key: _numbers(gain)
                for measure in MEASURES
                if (gain := self._gain(measure)) is not None
            },
            "found": dict(self.words),
            "notes": list(self.bench.notes),
        }

    def json(self) -> str:
        """One object."""
        return json.dumps(self.as_object(), indent=2) + "\n"

    def csv(self) -> str:
        """One line per value: side, figure, unit, repetition, value."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["side", "figure", "unit", "repetition", "value"])
        for side in self.bench.sides:
            for measure in MEASURES:
                spread = side.figures.get(measure.key)
                for number, value in enumerate(spread.values if spread else (), 1):
                    writer.writerow([side.name, measure.key, measure.unit, number, _rounded(value)])
        return out.getvalue()

    def _title(self, measure: Measure) -> str:
        found = self.words.get(measure.key)
        return f"{measure.title} ({found})" if found else measure.title

    def _cells(self, measure: Measure) -> list[str]:
        cells = [_shown(side.figures.get(measure.key)) for side in self.bench.sides]
        if self.bench.sides[1:]:
            gain = self._gain(measure)
            cells.append(_compared(gain.median) if gain else "")
        return cells

    def _gain(self, measure: Measure) -> Spread | None:
        """How many times better the first side is than the second."""
        if not self.bench.sides[1:]:
            return None
        one, other = (side.figures.get(measure.key) for side in self.bench.sides[:2])
        if one is None or other is None or measure.key == "own_memory":
            return None
        gain = gains(other, one, higher_is_better=measure.higher_is_better)
        return gain if gain.values else None


def _figure(measure: Measure, spread: Spread) -> dict[str, Any]:
    return {"unit": measure.unit, **_numbers(spread)}


def _numbers(spread: Spread) -> dict[str, Any]:
    return {
        "median": _rounded(spread.median),
        "low": _rounded(spread.low),
        "high": _rounded(spread.high),
        "values": [_rounded(value) for value in spread.values],
    }


def _rounded(value: float) -> float:
    return float(f"{value:.4g}") if abs(value) < 1000 else round(value, 1)


def _shown(spread: Spread | None) -> str:
    if spread is None:
        return "not measured"
    median, low, high = (_number(x) for x in (spread.median, spread.low, spread.high))
    return median if len(spread.values) == 1 else f"{median} ({low} to {high})"


def _compared(gain: float) -> str:
    """How much better the first side is, in words; `gain` is how many times."""
    if 0.995 <= gain < 1.005:
        return "the same"
    times, word = (gain, "better") if gain > 1 else (1 / gain, "worse")
    return f"{_number(times)} x {word}"


def _number(value: float) -> str:
    """Three figures that count."""
    for least, places in ((100, 0), (10, 1), (1, 2)):
        if value >= least:
            return f"{value:,.{places}f}"
    return f"{value:.3f}"


def _quoted(note: str) -> str:
    return note.replace("\n", "\n> ")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
