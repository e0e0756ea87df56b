"""A decoder of the ``qwen3`` shape that llama.cpp runs, small enough to train on two CPU cores.

Grouped-query attention with normed queries and keys, rotate-half positions, SwiGLU, no biases,
and one matrix for embedding and output. Attention is written out as two matrix products: for
sequences this short that is faster on a CPU than the fused kernel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

EPSILON = 1e-6


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The sizes of a model."""

    vocabulary: int = 2048
    width: int = 256
    layers: int = 6
    heads: int = 4
    key_value_heads: int = 2
    head_width: int = 64
    feed_forward: int = 704
    rope_base: float = 10_000.0

    @property
    def query_width(self) -> int:
        """Width of all queries together."""
        return self.heads * self.head_width

    @property
    def key_width(self) -> int:
        """Width of all keys, or of all values."""
        return self.key_value_heads * self.head_width


class RMSNorm(nn.Module):
    """Scale to unit root mean square, then by a learned weight."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, inputs: Tensor) -> Tensor:
        """The normed inputs in their own precision."""
        weight = self.weight.to(inputs.dtype)
        return functional.rms_norm(inputs, (inputs.shape[-1],), weight, EPSILON)


def rotate(inputs: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Turn each pair (first half, second half) by its position's angle."""
    first, second = inputs.chunk(2, -1)
    return torch.cat((first * cosine - second * sine, second * cosine + first * sine), -1)


class Block(nn.Module):
    """Attention, then feed-forward, each added to the residual stream."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        width = shape.width
        self.attention_norm = RMSNorm(width)
        self.query_key_value = nn.Linear(width, shape.query_width + 2 * shape.key_width, bias=False)
        self.query_norm = RMSNorm(shape.head_width)
        self.key_norm = RMSNorm(shape.head_width)
        self.attention_output = nn.Linear(shape.query_width, width, bias=False)
        self.feed_forward_norm = RMSNorm(width)
        self.gate_up = nn.Linear(width, 2 * shape.feed_forward, bias=False)
        self.down = nn.Linear(shape.feed_forward, width, bias=False)

    def forward(self, stream: Tensor, cosine: Tensor, sine: Tensor, mask: Tensor) -> Tensor:
        """The residual stream after this block."""
        stream = stream + self._attend(self.attention_norm(stream), cosine, sine, mask)
        gate, up = self.gate_up(self.feed_forward_norm(stream)).chunk(2, -1)
        return stream + self.down(functional.silu(gate) * up)  # type: ignore[no-any-return]

    def _attend(self, inputs: Tensor, cosine: Tensor, sine: Tensor, mask: Tensor) -> Tensor:
        shape, (batch, length, _) = self.shape, inputs.shape
        query, key, value = self.query_key_value(inputs).split(
            [shape.query_width, shape.key_width, shape.key_width], -1
        )
        per_head = (batch, length, -1, shape.head_width)
        query = rotate(self.query_norm(query.view(per_head)).transpose(1, 2), cosine, sine)
        key = rotate(self.key_norm(key.view(per_head)).transpose(1, 2), cosine, sine)
        repeats = shape.heads // shape.key_value_heads
        key = key.repeat_interleave(repeats, 1)
        value = value.view(per_head).transpose(1, 2).repeat_interleave(repeats, 1)
        scores = (query @ key.transpose(-1, -2)).float() * shape.head_width**-0.5 + mask
        attended = scores.softmax(-1).to(value.dtype) @ value
        merged = attended.transpose(1, 2).reshape(batch, length, shape.query_width)
        return self.attention_output(merged)  # type: ignore[no-any-return]


class TinyCoder(nn.Module):
    """The whole model."""

    cosine: Tensor
    sine: Tensor

    def __init__(self, shape: Shape, longest: int = 2048) -> None:
        super().__init__()
        self.shape = shape
        self.embedding = nn.Embedding(shape.vocabulary, shape.width)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.norm = RMSNorm(shape.width)
        half = shape.head_width // 2
        frequencies = shape.rope_base ** (-torch.arange(half).float() / half)
        angles = torch.arange(longest).float()[:, None] * frequencies
        self.register_buffer("cosine", angles.cos(), persistent=False)
        self.register_buffer("sine", angles.sin(), persistent=False)
        self._initialize()

    def hidden(self, ids: Tensor, precision: torch.dtype = torch.float32) -> Tensor:
        """The normed residual stream at the end, before the output matrix."""
        stream = self.embedding(ids).to(precision)
        length = ids.shape[1]
        cosine, sine = self.cosine[:length].to(precision), self.sine[:length].to(precision)
        mask = torch.full((length, length), -math.inf).triu(1)
        for block in self.blocks:
            stream = block(stream, cosine, sine, mask)
        return self.norm(stream)  # type: ignore[no-any-return]

    def forward(self, ids: Tensor) -> Tensor:
        """Logits of the next token at every position."""
        return functional.linear(self.hidden(ids), self.embedding.weight)

    def _initialize(self) -> None:
        for name, parameter in self.named_parameters():
            if parameter.dim() != 2:
                continue
            spread = 0.02 if name.startswith("embedding") else parameter.shape[1] ** -0.5
            if name.endswith(("attention_output.weight", "down.weight")):
                spread /= math.sqrt(2 * self.shape.layers)
            nn.init.normal_(parameter, 0, spread)
