"""Write a GGUF that has the shape of a real model, and random weights.

    python benchmarks/shape_model.py SHAPE OUTPUT [--quantisation Q] [--layers N]

What it writes measures time, not quality; see agent/measure/shape_writer.py.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from agent.measure.model_shapes import SHAPES, Shape
from agent.measure.shape_mix import QUANTISATIONS
from agent.measure.shape_writer import write_shape_model


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("output", type=Path)
    parser.add_argument("--quantisation", choices=QUANTISATIONS, default="q8_0")
    parser.add_argument("--layers", type=int, help="keep only so many, for a quick try")
    chosen = parser.parse_args(arguments)
    shape: Shape = SHAPES[chosen.shape]
    layers: int = shape.layers if chosen.layers is None else chosen.layers
    if not 1 <= layers <= shape.layers:
        parser.error(f"--layers: {shape.name} has {shape.layers}, so 1 to {shape.layers} can be")
    try:
        write_shape_model(shape, chosen.output, quantisation=chosen.quantisation, layers=layers)
    except OSError as error:
        sys.exit(f"{chosen.output} cannot be written: {error.strerror or error}")
    print(
        f"{chosen.output}: {chosen.output.stat().st_size:,} bytes, "
        f"{replace(shape, layers=layers).parameters:,} parameters, "
        f"{layers} of {shape.layers} layers, {chosen.quantisation}, random weights"
    )


if __name__ == "__main__":
    main()
