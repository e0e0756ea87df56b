"""A benchmark of a model that is not there: its shape with random weights.

A token costs the same as in the real model, so that its speed on this machine is known before
gigabytes are fetched. Where the whole is too large, a few layers are measured at two counts: all
layers are alike, so that every one of them adds the same, and the rest follows by a straight line.
"""

from __future__ import annotations

import difflib
import errno
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from agent.core.errors import UsageError
from agent.core.folders import cache_folder, private_folder
from agent.core.hardware import read_hardware
from agent.core.shortage import is_full
from agent.measure.bench import Bench, Measured
from agent.measure.bench_figures import BY_KEY, of_whole
from agent.measure.model_shapes import SHAPES, Shape
from agent.measure.shape_mix import QUANTISATIONS, file_bytes
from agent.measure.shape_writer import write_shape_model

_DEFAULT_QUANTISATION = "q4_k_m"
"""What most people fetch."""
_LARGE = 2 << 30
"""Bytes. A larger file is measured by a few of its layers unless all are asked for: it takes long
to write, and its prompts take minutes to read on a small machine."""
_COUNTS = ((16, 32), (12, 24), (8, 16), (4, 8), (2, 4), (1, 2))
"""Pairs of layer counts that Q4_K_M mixes like the whole, half of the layers more precise."""

_ROOM_FIX = "Free room on that disk, or set XDG_CACHE_HOME to a folder on another."
_FAR = 4
"""Times the layers that were measured: beyond that their noise outweighs what they tell."""

Watch = Callable[[str], Callable[[int, int], None]]
"""Told of a file that is begun; then of its bytes, those written and all."""


@dataclass(frozen=True, kw_only=True)
class ShapeWish:
    """What is to be measured."""

    shape: Shape
    quantisation: str
    layers: tuple[int, ...]
    """One count for the whole, two to extrapolate from."""
    why: str = ""
    """Why not the whole."""

    @property
    def whole(self) -> bool:
        """Nothing is extrapolated."""
        return self.layers == (self.shape.layers,)

    @property
    def title(self) -> str:
        """One line."""
        shape = self.shape
        sizes = " and ".join(f"{self.bytes_of(x) / 1e6:,.0f} MB" for x in self.layers)
        files = f"a file of {sizes}" if self.whole else f"{self.words}, files of {sizes}"
        return (
            f"Shape of {shape.name}, {self.quantisation.upper()}, random weights: "
            f"{shape.parameters / 1e6:,.0f} million parameters, {shape.layers} layers; {files}"
        )

    def bytes_of(self, layers: int) -> int:
        """Size of the file with so many layers."""
        return file_bytes(replace(self.shape, layers=layers), self.quantisation)

    @property
    def words(self) -> str:
        """How its figures are found where they are not measured."""
        if self.whole:
            return ""
        few, many = self.layers
        return f"extrapolated from {few} and {many} of {self.shape.layers} layers"


def wish_of(name: str, layers: str | None) -> ShapeWish:
    """What ``--shape NAME[:QUANT]`` and ``--layers`` ask for. Raises UsageError."""
    wanted, colon, quantisation = name.lower().partition(":")
    if not colon:
        quantisation = _DEFAULT_QUANTISATION
    shape = SHAPES[_known(wanted, "shape", list(SHAPES))]
    quantisation = _known(quantisation, "quantisation of a shape", list(QUANTISATIONS))
    if layers is not None:
        return ShapeWish(shape=shape, quantisation=quantisation, layers=_counts(layers, shape))
    size = file_bytes(shape, quantisation)
    room = min(
        read_hardware().memory_available // 2, shutil.disk_usage(cache_folder("shapes")).free // 2
    )
    if size <= min(room, _LARGE):
        return ShapeWish(shape=shape, quantisation=quantisation, layers=(shape.layers,))
    why = (
        f"{size / 1e9:.1f} GB are more than half of what is free here"
        if size > room
        else f"{size / 1e9:.1f} GB take long; --layers all measures them"
    )
    for few, many in _COUNTS:
        part = sum(file_bytes(replace(shape, layers=x), quantisation) for x in (few, many))
        if many < shape.layers and part <= min(room, 2 * _LARGE):
            return ShapeWish(shape=shape, quantisation=quantisation, layers=(few, many), why=why)
    raise UsageError(
        f"Not even two layers of {shape.name} in {quantisation} fit here.",
        fix="Free memory or disk, or take a smaller shape.",
    )


@contextmanager
def shape_files(wish: ShapeWish, *, keep: bool, watch: Watch) -> Iterator[list[Path]]:
    """Model files of `wish`, one per layer count; removed at the end unless they are to be kept.

    Raises UsageError when they cannot be written.
    """
    kept = cache_folder("shapes")
    with private_folder(kept) as private:
        files = []
        named = {x: f"{wish.shape.name}-{wish.quantisation}-{x}-layers.gguf" for x in wish.layers}
        _refuse_too_large(
            kept, sum(wish.bytes_of(x) for x in named if not (kept / named[x]).exists())
        )
        for layers, name in named.items():
            path = kept / name
            if not path.exists():
                path = path if keep else private / name
                try:
                    write_shape_model(
                        wish.shape,
                        path,
                        quantisation=wish.quantisation,
                        layers=layers,
                        watch=watch(name),
                    )
                except OSError as error:
                    why = os.strerror(errno.ENOSPC) if is_full(kept) else error.strerror or error
                    raise UsageError(f"{path} cannot be written: {why}", fix=_ROOM_FIX) from None
            files.append(path)
        yield files


def _refuse_too_large(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UsageError(
            f"The files of this shape take {needed / 1e6:,.0f} MB, and {folder} has "
            f"{free / 1e6:,.0f} MB of room.",
            fix=f"{_ROOM_FIX} Fewer --layers or a smaller quantisation take less.",
        )


def bench_of_whole(bench: Bench, wish: ShapeWish) -> Bench:
    """What the two sides of `bench`, one per layer count, say of all layers."""
    if wish.whole:
        return bench
    few, many = bench.sides
    figures = {}
    layers = (wish.layers[0], wish.layers[1], wish.shape.layers)
    for key, spread in many.figures.items():
        if key == "own_memory":
            figures[key] = spread
        elif key in few.figures:
            whole = of_whole(BY_KEY[key].unit, few.figures[key], spread, layers=layers)
            if whole is not None:
                figures[key] = whole
    model = replace(
        many.model, name=f"{wish.shape.name} as a whole", parameters=wish.shape.parameters
    )
    whole_side = Measured(
        name="llamacpp", description=many.description, model=model, figures=figures
    )
    note = (
        f"Only {wish.layers[0]} and {wish.layers[1]} of {wish.shape.layers} layers were measured"
        + (f", because {wish.why}" if wish.why else "")
        + ". Every figure so marked is extrapolated by a straight line (seconds, and seconds per "
        "token, = a + b x layers), as if the whole fitted into memory."
    )
    if wish.layers[1] * _FAR < wish.shape.layers:
        note += " So few layers make it a rough guess."
    return replace(bench, sides=(whole_side,), notes=(*bench.notes, note))


def extrapolated_keys(bench: Bench) -> list[str]:
    """Figures that depend on layers."""
    return [
        key
        for key in bench.sides[0].figures
        if BY_KEY[key].unit != "tokens" and key != "own_memory"
    ]


def _known(name: str, what: str, names: Sequence[str]) -> str:
    if name in names:
        return name
    near = difflib.get_close_matches(name, names, n=2, cutoff=0.5)
    there = ", ".join(names)
    raise UsageError(
        f"--shape: {name or 'nothing'} is no {what}.",
        fix=(f"Did you mean {' or '.join(near)}? " if near else "") + f"There are {there}.",
    )


def _counts(text: str, shape: Shape) -> tuple[int, ...]:
    if text == "all":
        return (shape.layers,)
    parts = [part.strip() for part in text.split(",")]
    counts = [int(part) for part in parts if part.isdigit()]
    if len(parts) == len(counts) == 2 and max(counts) > shape.layers:
        raise UsageError(
            f"--layers: {text} is too many; {shape.name} has {shape.layers} layers.",
            fix=f"Give two numbers of at most {shape.layers}, the smaller one first, or all.",
        )
    if len(parts) != 2 or len(counts) != 2 or not 1 <= counts[0] < counts[1]:
        raise UsageError(
            f"--layers: {text} is neither all nor two numbers, the smaller one first.",
            fix=f"{shape.name} has {shape.layers} layers: --layers 4,8 extrapolates from these.",
        )
    return (counts[0], counts[1])
