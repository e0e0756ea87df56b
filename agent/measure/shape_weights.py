"""Random weights with which a model writes valid text that never ends.

What such a model writes means nothing: English and Python words, each with a blank before it, never
an end of text. For that the rows of the output matrix (tied: of the embedding) are zero for all
other tokens, while the words share logits of a large spread, whose best is far above zero. That
holds for greedy writing and at the usual temperatures too. The spreads of the other matrices are
such that the words keep changing for hundreds of tokens; a loop would be cut off by its reader.

With q4_0 the output matrix is Q8_0, as llama-quantize, too, keeps it more precise than the rest.
"""

from __future__ import annotations

import math

import gguf
import numpy as np
import numpy.typing as npt
from gguf import GGMLQuantizationType, LlamaFileType

from agent.measure.model_shapes import Shape

Data = npt.NDArray[np.float32] | npt.NDArray[np.float16] | npt.NDArray[np.uint8]

_LOGIT_SPREAD = 8.0
"""Standard deviation of the logits of words. The best of thousands is at about three times that,
where the many tokens with logit 0 weigh nothing."""
_ATTENTION_SPREAD = 5.0
"""Of the attention scores. Single tokens are looked at then; with the mean of all, which hardly
changes from token to token, the text settles on one word (tried)."""
_BIAS_SPREAD = 0.1
_DIGIT_SPREAD = {GGMLQuantizationType.Q8_0: 73.9, GGMLQuantizationType.Q4_0: 4.61}
"""Standard deviation of random bytes read as the integers of a block."""
QUANTISATIONS = {
    "q8_0": (GGMLQuantizationType.Q8_0, LlamaFileType.MOSTLY_Q8_0),
    "q4_0": (GGMLQuantizationType.Q4_0, LlamaFileType.MOSTLY_Q4_0),
    "f16": (GGMLQuantizationType.F16, LlamaFileType.MOSTLY_F16),
}
"""By name: how matrices are stored, and what the file says of itself."""


class Weights:
    """Makes the tensors, always the same from one seed."""

    def __init__(self, shape: Shape, quantisation: str, words: list[int], seed: int) -> None:
        self._output = "token_embd.weight" if shape.tied else "output.weight"
        self._type = QUANTISATIONS[quantisation][0]
        self._layers = shape.layers
        self._words = words
        self._random = np.random.default_rng(seed)

    def kind(self, name: str, size: tuple[int, ...]) -> GGMLQuantizationType:
        """How the tensor is stored."""
        if len(size) == 1:
            return GGMLQuantizationType.F32
        if name == self._output and self._type is GGMLQuantizationType.Q4_0:
            return GGMLQuantizationType.Q8_0
        return self._type

    def make(self, name: str, size: tuple[int, ...]) -> Data:
        """The tensor as its bytes lie in the file."""
        if len(size) == 1:
            return self._vector(name, size[0])
        kind = self.kind(name, size)
        rows, columns = size
        if name == self._output:
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
                return even / math.sqrt(self._layers)
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
        # A block of both kinds: its scale as a half, then its 32 integers.
        size, width = gguf.GGML_QUANT_SIZES[kind]
        blocks = np.empty((rows * columns // size, width), dtype=np.uint8)
        blocks[:, 2:] = self._random.integers(0, 256, (len(blocks), width - 2), dtype=np.uint8)
        if kind is GGMLQuantizationType.Q8_0:
            # A quantiser never makes -128, so kernels need not expect it.
            integers = blocks.view(np.int8)[:, 2:]
            np.maximum(integers, -127, out=integers)
        # Either sign, because the mean of random integers is not quite zero.
        sign = self._random.integers(0, 2, (len(blocks), 1)) * 2 - 1
        blocks[:, :2] = (sign * (spread / _DIGIT_SPREAD[kind])).astype("<f2").view(np.uint8)
        return blocks.reshape(rows, -1)
