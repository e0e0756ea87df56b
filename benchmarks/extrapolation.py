"""How far `turbo bench --shape` is off where it measures a few layers and extrapolates the rest.

    python benchmarks/extrapolation.py [--shape qwen2.5-coder-0.5b] [--quantisation q4_k_m]
        [--pairs 4,8 8,16] [--repeat 3]

Measures the whole shape and each count of the pairs in turn, `repeat` times, and compares the
straight line through each pair with what the whole really took. Errors are (extrapolated -
measured) / measured, of the medians; the spread of the whole beside them says how much of that is
the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from agent.core.errors import TurboError
from agent.measure.bench_figures import Spread, Unit, of_whole
from agent.measure.bench_report import this_machine
from agent.measure.model_shapes import SHAPES
from agent.measure.shape_mix import QUANTISATIONS
from benchmarks.guide import Models, measure, positive, say, shown
from benchmarks.guide_cases import UNITS, Key, Way

KEYS: tuple[Key, ...] = (
    *("ready", "first token", "reading", "writing", "writing, 4 at once", "memory"),
)


async def run(
    ways: dict[int, Way], repeat: int, models: Models, folder: Path
) -> dict[int, dict[Key, Spread]]:
    """The figures by layers; the counts take turns."""
    values: dict[int, list[dict[Key, float]]] = {layers: [] for layers in ways}
    for number in range(1, repeat + 1):
        for layers, way in ways.items():
            say(f"{layers} layers: {number} of {repeat}")
            own = folder / f"{layers}-{number}"
            own.mkdir()
            values[layers].append(await measure(way, KEYS, models, own))
    return {
        layers: {key: Spread(tuple(x[key] for x in found)) for key in KEYS}
        for layers, found in values.items()
    }


def table(found: dict[int, dict[Key, Spread]], pairs: Sequence[tuple[int, int]]) -> str:
    """In Markdown."""
    whole = max(found)
    heads = ["figure", f"all {whole} layers", *(f"from {few} and {many}" for few, many in pairs)]
    rows = [heads, ["---", *("---:" for _ in heads[1:])]]
    for key in KEYS:
        real = found[whole][key]
        cells = [f"{key}, {UNITS[key]}", shown(real)]
        for few, many in pairs:
            unit: Unit = UNITS[key]  # type: ignore[assignment]
            made = of_whole(unit, found[few][key], found[many][key], layers=(few, many, whole))
            off = 100 * (made.median / real.median - 1) if made else float("nan")
            cells.append(f"{shown(made)}, {off:+.0f}%" if made else "-")
        rows.append(cells)
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def two(text: str) -> tuple[int, int]:
    few, _, many = text.partition(",")
    if not (few.isdigit() and many.isdigit() and 0 < int(few) < int(many)):
        raise argparse.ArgumentTypeError(f"{text} is not two numbers, the smaller one first")
    return int(few), int(many)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shape", choices=SHAPES, default="qwen2.5-coder-0.5b")
    parser.add_argument("--quantisation", choices=QUANTISATIONS, default="q4_k_m")
    parser.add_argument("--pairs", type=two, nargs="+", default=[(4, 8), (8, 16)])
    parser.add_argument("--repeat", type=positive, default=3)
    arguments = parser.parse_args()
    counts = sorted(
        {x for pair in arguments.pairs for x in pair} | {SHAPES[arguments.shape].layers}
    )
    ways = {
        layers: Way(label="", model=f"{arguments.shape}:{arguments.quantisation}:{layers}")
        for layers in counts
    }
    with tempfile.TemporaryDirectory(prefix="turbo-extrapolation-") as name:
        models = Models(Path(name), None)
        try:
            found = asyncio.run(run(ways, arguments.repeat, models, Path(name)))
        except TurboError as error:
            sys.exit(str(error))
    print(f"{this_machine().words}; medians of {arguments.repeat}\n")
    print(table(found, arguments.pairs))
    print(f"\n`python benchmarks/extrapolation.py {' '.join(sys.argv[1:])}`".replace(" `", "`"))


if __name__ == "__main__":
    main()
