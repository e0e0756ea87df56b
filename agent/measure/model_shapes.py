"""The shapes of real models: the sizes of their tensors, and so what a token costs.

The figures come from the published config.json of Qwen/Qwen2.5-Coder-{0.5B,1.5B,3B,7B,14B,32B}-
Instruct and microsoft/Phi-3-mini-4k-instruct (huggingface.co): the fields
num_hidden_layers, hidden_size, num_attention_heads, num_key_value_heads, intermediate_size,
vocab_size, max_position_embeddings, rope_theta, rms_norm_eps, tie_word_embeddings, sliding_window.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The sizes of a model. All widths are multiples of 32, the block of the quantisations."""

    name: str
    architecture: Literal["qwen2", "phi3"]
    """qwen2: biases on query, key and value; phi3: these three fused, and gate with up."""
    layers: int
    width: int
    heads: int
    key_value_heads: int
    feed_forward: int
    vocabulary: int
    context: int
    rope_base: float
    epsilon: float
    tied: bool
    """The embedding is the output matrix as well."""
    sliding_window: int | None = None

    @property
    def head_width(self) -> int:
        """Of query, key and value alike."""
        return self.width // self.heads

    @property
    def parameters(self) -> int:
        """Of all tensors."""
        return sum(math.prod(size) for _, size in tensors_of(self))


def _qwen(
    name: str,
    *,
    layers: int,
    width: int,
    heads: int,
    key_value_heads: int,
    feed_forward: int,
    vocabulary: int = 151_936,
    tied: bool = True,
) -> Shape:
    """A Qwen2.5; these are alike in all else."""
    return Shape(
        name=name,
        architecture="qwen2",
        layers=layers,
        width=width,
        heads=heads,
        key_value_heads=key_value_heads,
        feed_forward=feed_forward,
        vocabulary=vocabulary,
        context=32_768,
        rope_base=1_000_000.0,
        epsilon=1e-6,
        tied=tied,
    )


SHAPES = {
    shape.name: shape
    for shape in (
        _qwen(
            "qwen2.5-coder-0.5b",
            layers=24,
            width=896,
            heads=14,
            key_value_heads=2,
            feed_forward=4864,
        ),
        _qwen(
            "qwen2.5-coder-1.5b",
            layers=28,
            width=1536,
            heads=12,
            key_value_heads=2,
            feed_forward=8960,
        ),
        _qwen(
            "qwen2.5-coder-3b",
            layers=36,
            width=2048,
            heads=16,
            key_value_heads=2,
            feed_forward=11008,
        ),
        _qwen(
            "qwen2.5-coder-7b",
            layers=28,
            width=3584,
            heads=28,
            key_value_heads=4,
            feed_forward=18944,
            vocabulary=152_064,
            tied=False,
        ),
        _qwen(
            "qwen2.5-coder-14b",
            layers=48,
            width=5120,
            heads=40,
            key_value_heads=8,
            feed_forward=13824,
            vocabulary=152_064,
            tied=False,
        ),
        _qwen(
            "qwen2.5-coder-32b",
            layers=64,
            width=5120,
            heads=40,
            key_value_heads=8,
            feed_forward=27648,
            vocabulary=152_064,
            tied=False,
        ),
        Shape(
            name="phi-3-mini",
            architecture="phi3",
            layers=32,
            width=3072,
            heads=32,
            key_value_heads=32,
            feed_forward=8192,
            vocabulary=32_064,
            context=4096,
            rope_base=10_000.0,
            epsilon=1e-5,
            tied=False,
            sliding_window=2047,
        ),
    )
}


def tensors_of(shape: Shape) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Name and size of every tensor; of a matrix, the rows and the columns."""
    width, hidden = shape.width, shape.feed_forward
    query, key = shape.heads * shape.head_width, shape.key_value_heads * shape.head_width
    yield "token_embd.weight", (shape.vocabulary, width)
    for layer in range(shape.layers):
        block = f"blk.{layer}"
        yield f"{block}.attn_norm.weight", (width,)
        if shape.architecture == "phi3":
            yield f"{block}.attn_qkv.weight", (query + 2 * key, width)
        else:
            for part, rows in (("attn_q", query), ("attn_k", key), ("attn_v", key)):
                yield f"{block}.{part}.weight", (rows, width)
                yield f"{block}.{part}.bias", (rows,)
        yield f"{block}.attn_output.weight", (width, query)
        yield f"{block}.ffn_norm.weight", (width,)
        if shape.architecture == "phi3":
            yield f"{block}.ffn_up.weight", (2 * hidden, width)
        else:
            yield f"{block}.ffn_gate.weight", (hidden, width)
            yield f"{block}.ffn_up.weight", (hidden, width)
        yield f"{block}.ffn_down.weight", (width, hidden)
    yield "output_norm.weight", (width,)
    if not shape.tied:
        yield "output.weight", (shape.vocabulary, width)
