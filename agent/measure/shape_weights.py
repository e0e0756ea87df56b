"""Random weights with which a model writes valid text that never ends.

What such a model writes means nothing: English and Python words, each with a blank before it, never
an end of text. For that the rows of the output matrix (tied: of the embedding) are zero for all
other tokens, while the words share logits of a large spread, whose best is far above zero. That
holds for greedy writing and at the usual temperatures too. The spreads of the other matrices are
such that the words keep changing for hundreds of tokens; a loop would be cut off by its reader.
"""

from __future__ import annotations

import math

import gguf
import numpy as np
import numpy.typing as npt
from gguf import GGMLQuantizationType

from agent.measure.model_shapes import Shape
from agent.measure.shape_blocks import random_blocks
from agent.measure.shape_mix import output_of, stored_as

Data = npt.NDArray[np.float32] | npt.NDArray[np.float16] | npt.NDArray[np.uint8]

_LOGIT_SPREAD = 8.0
"""Standard deviation of the logits of words. The best of thousands is at about three times that,
where the many tokens with logit 0 weigh nothing."""
_ATTENTION_SPREAD = 5.0
"""Of the attention scores. Single tokens are looked at then; with the mean of all, which hardly
changes from token to token, the text settles on one word (tried)."""
_BIAS_SPREAD = 0.1


class Weights:
    """Makes the tensors, always the same from one seed."""

    def __init__(self, shape: Shape, quantisation: str, words: list[int], seed: int) -> None:
        self._shape = shape
        self._quantisation = quantisation
        self._words = words
        self._random = np.random.default_rng(seed)

    def make(self, name: str, size: tuple[int, ...]) -> Data:
        """The tensor as its bytes lie in the file."""
        if len(size) == 1:
            return self._vector(name, size[0])
        kind = stored_as(self._shape, self._quantisation, name, size)
        rows, columns = size
        if name == output_of(self._shape):
            some = self._matrix(kind, len(self._words), columns, 1.0)
            matrix = np.zeros((rows, some.shape[1]), dtype=some.dtype)
            matrix[self._words] = some
            return matrix
        return self._matrix(kind, rows, columns, self._spread(name, columns))

    def _spread(self, name: str, columns: int) -> float:
        """The standard deviation of a matrix that all rows take part in."""
        if name == "token_embd.weight":
            return 1.0
        # What comes in has a spread of 1 after its norm, so that this one keeps it.
        even = 1 / math.sqrt(columns)
        match name.split(".")[2]:
            case "attn_q" | "attn_k" | "attn_qkv":
                return even * math.sqrt(_ATTENTION_SPREAD)
            case "attn_output" | "ffn_down":
                # All layers together add about as much as the embedding brought.
                return even / math.sqrt(self._shape.layers)
        return even

    def _vector(self, name: str, size: int) -> Data:
        if name.endswith(".bias"):
            return self._random.standard_normal(size, dtype=np.float32) * np.float32(_BIAS_SPREAD)
        ones = np.ones(size, dtype=np.float32)
        if name == "output_norm.weight":
            # With these signs a tied embedding disfavours the token that was just read.
            ones[self._random.random(size) < 0.6] = -1
            return ones * np.float32(_LOGIT_SPREAD / math.sqrt(size))
        return ones

    def _matrix(
        self, kind: GGMLQuantizationType, rows: int, columns: int, spread: float
    ) -> npt.NDArray[np.float16] | npt.NDArray[np.uint8]:
        if kind is GGMLQuantizationType.F16:
            halves = np.empty((rows, columns), dtype=np.float16)
            for row in halves:
                row[:] = self._random.standard_normal(columns, dtype=np.float32) * spread
            return halves
        block, _ = gguf.GGML_QUANT_SIZES[kind]
        blocks = random_blocks(self._random, kind, rows * columns // block, spread)
        return blocks.reshape(rows, -1)
