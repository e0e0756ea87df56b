"""The measured configurations as a picture."""

from __future__ import annotations

from pathlib import Path

from agent.measure.tune_report import rows_of
from agent.measure.tuning import Tuning

_WIDTH, _ROW, _EDGE = 9.0, 0.38, 1.4
"""Inches."""


def draw(tuning: Tuning, title: str, path: Path) -> None:
    """Write a PNG: how many times as fast as the default each configuration is. A point per
    measurement shows how far they spread. Raises OSError."""
    # Takes a second, which only this needs; without pyplot no window system is looked for.
    from matplotlib.figure import Figure  # noqa: PLC0415

    rows = [row for row in reversed(rows_of(tuning)) if row.times_as_fast is not None]
    default_s = next(row.seconds for row in rows if row.configuration.items == ())
    figure = Figure(figsize=(_WIDTH, _EDGE + _ROW * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    labels = [row.configuration.label for row in rows]
    bars = axes.barh(labels, [row.times_as_fast or 0.0 for row in rows], color="#4c78a8")
    axes.bar_label(bars, [f"{row.seconds:.1f} s" for row in rows], padding=4)
    for place, row in enumerate(rows):
        own = [x.seconds for x in tuning.samples if x.configuration == row.configuration]
        points = [(default_s or 0.0) / taken for taken in own]
        axes.plot(points, [place] * len(points), "o", color="#222222", markersize=3)
    axes.axvline(1.0, color="#888888", linewidth=1)
    axes.margins(x=0.12)
    axes.set_xlabel("times as fast as the default (points: single measurements)")
    axes.set_title(title, fontsize="medium")
    figure.savefig(path, dpi=120)
