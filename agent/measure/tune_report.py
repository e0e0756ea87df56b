"""What a tuning has found, as rows, for programs, and in Markdown. Pure."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agent.measure.configuration import DEFAULT, Configuration
from agent.measure.lengths import Rates
from agent.measure.search import ratios
from agent.measure.tuning import Sample, Tuning


@dataclass(frozen=True, kw_only=True)
class Row:
    """One configuration."""

    configuration: Configuration
    rates: Rates | None
    """Medians; None when it was not measured."""
    seconds: float | None
    """Of the workflow: the median of the default, and by `times_as_fast` what that is here."""
    times_as_fast: float | None
    """As the default next to it; the median of the last round that it was in."""
    samples: int
    remark: str


def rows_of(tuning: Tuning) -> list[Row]:
    """The default, then what was measured, the fastest first, then what could not be."""
    measured = [_row(tuning, each) for each in _configurations(tuning.samples)]
    measured.sort(key=lambda row: (row.configuration != DEFAULT, -(row.times_as_fast or 0)))
    known = {row.configuration for row in measured}
    return measured + [
        Row(configuration=each, rates=None, seconds=None, times_as_fast=None, samples=0, remark=why)
        for each, why in tuning.refused.items()
        if each not in known
    ]


def times_as_fast(tuning: Tuning, configuration: Configuration) -> list[float]:
    """How many times as fast as the default next to it each measurement of the last round that it
    was in was; of the finalist those that the verdict is about."""
    name = next(x.round for x in reversed(tuning.samples) if x.configuration == configuration)
    if configuration == tuning.winner and tuning.verdict is not None:
        return list(tuning.verdict.ratios)
    return ratios(tuning.measured(name)).get(configuration, [1.0])


def not_tried(tuning: Tuning) -> dict[str, str]:
    """What was not tried, and why."""
    return {each.label: why for each, why in tuning.unmeasured.items()} | tuning.left_out


def as_object(tuning: Tuning) -> dict[str, Any]:
    """For programs; settings by their names, times in seconds, rates in tokens per second."""
    return {
        "took_s": round(tuning.took_s, 2),
        "cores_taken_by_others": round(tuning.others, 2),
        "server": tuning.description,
        "tokens": dataclasses.asdict(tuning.lengths),
        "rows": [_row_object(row) for row in rows_of(tuning)],
        "not_tried": not_tried(tuning),
        "winner": tuning.winner.values if tuning.improved else {},
        "gain": tuning.verdict.gain if tuning.improved and tuning.verdict else 1.0,
        "improved": tuning.improved,
        "why": tuning.why,
        "samples": [
            {
                "round": sample.round,
                "settings": sample.configuration.values,
                **_rates_object(sample.rates),
                "workflow_s": sample.seconds,
            }
            for sample in tuning.samples
        ],
    }


HEAD = (
    *("configuration", "prompt tokens/s", "one stream tokens/s", "all slots tokens/s"),
    *("workflow s", "times as fast", "measured"),
)


HOW = (
    "The machine is not equally fast all the time: times as fast is the median against the default "
    "measured next to it, and workflow s what that makes of the default's median."
)


def cells(row: Row) -> list[str]:
    """The row as text, in the order of HEAD; a configuration without figures has its remark."""
    if row.rates is None or row.seconds is None:
        return [row.configuration.label, "", "", "", "", "", row.remark]
    figures = (row.rates.prefill, row.rates.single, row.rates.together)
    ratio = "" if row.times_as_fast is None else f"{row.times_as_fast:.2f}"
    return [
        row.configuration.label,
        *(f"{figure:,.1f}" for figure in figures),
        f"{row.seconds:.2f}",
        ratio,
        ("once" if row.samples == 1 else f"{row.samples} times")
        + (f"; {row.remark}" if row.remark else ""),
    ]


def as_markdown(tuning: Tuning, facts: Mapping[str, str]) -> str:
    """A page for people. `facts` say what was measured and where."""
    lines = ["# turbo tune", "", *(f"- {name}: {value}" for name, value in facts.items())]
    lines += [
        f"- measured in {tuning.took_s:.0f} s, with a prompt of about "
        f"{tuning.lengths.prompt} tokens and answers of {tuning.lengths.single} (one stream) and "
        f"{tuning.lengths.together} (all slots); others took {tuning.others:.1f} cores meanwhile",
        "",
        f"**{tuning.why}**",
        "",
        _line(HEAD),
        _line(["---", *["---:"] * 5, "---"]),
        *(_line(cells(row)) for row in rows_of(tuning)),
        "",
        HOW,
        "",
    ]
    lines += [f"- {name}: not tried, {why}" for name, why in not_tried(tuning).items()]
    return "\n".join(lines).rstrip() + "\n"


def _row(tuning: Tuning, configuration: Configuration) -> Row:
    mine = [x for x in tuning.samples if x.configuration == configuration]
    default_s = statistics.median(x.seconds for x in tuning.samples if x.configuration == DEFAULT)
    times = statistics.median(times_as_fast(tuning, configuration))
    return Row(
        configuration=configuration,
        rates=Rates(
            prefill=statistics.median(x.rates.prefill for x in mine),
            single=statistics.median(x.rates.single for x in mine),
            together=statistics.median(x.rates.together for x in mine),
            slots=mine[0].rates.slots,
        ),
        seconds=default_s / times,
        times_as_fast=times,
        samples=len(mine),
        remark=tuning.refused.get(configuration, ""),
    )


def _configurations(samples: Sequence[Sample]) -> list[Configuration]:
    return list(dict.fromkeys(sample.configuration for sample in samples))


def _row_object(row: Row) -> dict[str, Any]:
    return {
        "label": row.configuration.label,
        "settings": row.configuration.values,
        **(_rates_object(row.rates) if row.rates else {}),
        "workflow_s": row.seconds,
        "times_as_fast": row.times_as_fast,
        "samples": row.samples,
        "remark": row.remark or None,
    }


def _rates_object(rates: Rates) -> dict[str, float]:
    return {
        "prefill_tokens_per_s": rates.prefill,
        "single_tokens_per_s": rates.single,
        "all_slots_tokens_per_s": rates.together,
        "slots": rates.slots,
    }


def _line(words: Sequence[str]) -> str:
    return "| " + " | ".join(word.replace("|", "\\|") for word in words) + " |"
