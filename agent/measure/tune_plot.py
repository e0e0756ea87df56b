"""The measured configurations as a picture."""

from __future__ import annotations

import textwrap
from pathlib import Path

from agent.core.config import let_matplotlib_keep
from agent.core.folders import cache_folder
from agent.measure.tune_report import rows_of, times_as_fast
from agent.measure.tuning import Tuning

_WIDTH, _ROW, _EDGE = 9.0, 0.45, 1.5
"""Inches."""
_WRAP = 36
"""Characters of a label before it goes on below."""


def draw(tuning: Tuning, title: str, path: Path) -> None:
    """Write a PNG: how many times as fast as the default each configuration is. A point per
    comparison shows how far they spread. Raises OSError."""
    let_matplotlib_keep(cache_folder("matplotlib"))
    # Takes a second, which only this needs; without pyplot no window system is looked for.
    from matplotlib.figure import Figure  # noqa: PLC0415

    rows = [row for row in reversed(rows_of(tuning)) if row.times_as_fast is not None]
    figure = Figure(figsize=(_WIDTH, _EDGE + _ROW * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    labels = [textwrap.fill(f"{x.configuration.label}: {x.seconds:.1f} s", _WRAP) for x in rows]
    axes.barh(labels, [row.times_as_fast or 0.0 for row in rows], color="#9ecae1")
    for place, row in enumerate(rows):
        points = times_as_fast(tuning, row.configuration)
        axes.plot(points, [place] * len(points), "o", color="#08519c", markersize=4)
    axes.axvline(1.0, color="#444444", linewidth=1)
    axes.tick_params(axis="y", labelsize="small")
    axes.set_xlabel("times as fast as the default; points are single comparisons")
    figure.suptitle(title, fontsize="medium")
    figure.savefig(path, dpi=120)
