"""Random blocks of the quantisations, laid out as llama.cpp reads them (ggml-common.h).

Each has one scale for all of its integers, so that they only differ in these; what a matrix costs
does not depend on its values.
"""

from __future__ import annotations

from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
from gguf import GGMLQuantizationType

Bytes = npt.NDArray[np.uint8]
Kind = GGMLQuantizationType

_DIGIT_SPREAD = {
    Kind.Q8_0: 73.9,
    Kind.Q6_K: 18.47,
    Kind.Q5_0: 9.23,
    Kind.Q4_0: 4.61,
    Kind.Q4_K: 4.61,
}
"""Standard deviation of the random integers of a block."""
_K_SCALES = np.array([1] * 8 + [0x11] * 4, dtype=np.uint8)
"""Q4_K: eight scales and eight minima of 6 bits each, all of them 1."""
_K_MIDDLE = 7.5
"""Q4_K: mean of its integers, 0 to 15, which the minimum takes off."""


def random_blocks(random: np.random.Generator, kind: Kind, count: int, spread: float) -> Bytes:
    """So many blocks, whose values have a mean of zero and that standard deviation."""
    width = gguf.GGML_QUANT_SIZES[kind][1]
    blocks = random.integers(0, 256, (count, width), dtype=np.uint8)
    scale = spread / _DIGIT_SPREAD[kind]
    # Either sign, because the mean of random integers is not quite zero.
    signs = random.integers(0, 2, (count, 1)) * 2 - 1
    match kind:
        case Kind.Q4_K:
            blocks[:, :2] = _halves(np.full((count, 1), scale))
            blocks[:, 2:4] = _halves(np.full((count, 1), scale * _K_MIDDLE))
            blocks[:, 4:16] = _K_SCALES
        case Kind.Q6_K:
            blocks[:, 192:208] = signs.astype(np.int8).view(np.uint8)
            blocks[:, 208:] = _halves(np.full((count, 1), scale))
        case _:
            if kind is Kind.Q8_0:
                # A quantiser never makes -128, so kernels need not expect it.
                integers = blocks.view(np.int8)[:, 2:]
                np.maximum(integers, -127, out=integers)
            blocks[:, :2] = _halves(signs * scale)
    return blocks


def _halves(values: npt.NDArray[np.floating[Any]]) -> Bytes:
    return values.astype("<f2").view(np.uint8)
