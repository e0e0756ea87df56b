"""Which tensor is stored how, by the name of a quantisation.

That follows what llama-quantize does without an importance matrix (llama_tensor_get_type_impl and
tensor_type_fallback in src/llama-quant.cpp of llama.cpp): the output matrix is kept more precise,
in Q4_K_M half of the layers have more precise values and down projections, and where the columns
do not divide into blocks of 256, another type takes over.
"""

from __future__ import annotations

import math

import gguf
from gguf import GGMLQuantizationType, LlamaFileType

from agent.measure.model_shapes import Shape, tensors_of

Kind = GGMLQuantizationType

QUANTISATIONS = {
    "q4_k_m": (Kind.Q4_K, LlamaFileType.MOSTLY_Q4_K_M),
    "q4_0": (Kind.Q4_0, LlamaFileType.MOSTLY_Q4_0),
    "q6_k": (Kind.Q6_K, LlamaFileType.MOSTLY_Q6_K),
    "q8_0": (Kind.Q8_0, LlamaFileType.MOSTLY_Q8_0),
    "f16": (Kind.F16, LlamaFileType.MOSTLY_F16),
}
"""By name: how most matrices are stored, and what the file says of itself."""

_INSTEAD = {Kind.Q4_K: Kind.Q5_0, Kind.Q6_K: Kind.Q8_0}
"""For columns that do not divide into blocks of 256."""
_MORE_PRECISE = {Kind.Q4_K, Kind.Q4_0}
"""Types whose files have an output matrix in Q6_K."""


def stored_as(shape: Shape, quantisation: str, name: str, size: tuple[int, ...]) -> Kind:
    """The type of one tensor of `shape`, whose layers are those of the file."""
    if len(size) == 1:
        return Kind.F32
    kind = QUANTISATIONS[quantisation][0]
    if name == output_of(shape):
        kind = Kind.Q6_K if kind in _MORE_PRECISE else kind
    elif quantisation == "q4_k_m" and _is_sensitive(name):
        layer = int(name.split(".")[1])
        kind = Kind.Q6_K if _gets_more_bits(layer, shape.layers) else kind
    block, _ = gguf.GGML_QUANT_SIZES[kind]
    return kind if size[1] % block == 0 else _INSTEAD[kind]


def output_of(shape: Shape) -> str:
    """The tensor that the logits come from."""
    return "token_embd.weight" if shape.tied else "output.weight"


def stored_bytes(kind: Kind, size: tuple[int, ...]) -> int:
    """Of a tensor."""
    block, width = gguf.GGML_QUANT_SIZES[kind]
    return math.prod(size) // block * width


def file_bytes(shape: Shape, quantisation: str) -> int:
    """Of all tensors, which is all but a few MB of the file."""
    return sum(
        stored_bytes(stored_as(shape, quantisation, name, size), size)
        for name, size in tensors_of(shape)
    )


def _is_sensitive(name: str) -> bool:
    return any(part in name for part in (".attn_v.", ".attn_qkv.", ".ffn_down."))


def _gets_more_bits(layer: int, layers: int) -> bool:
    eighth = layers // 8
    return layer < eighth or layer >= 7 * layers // 8 or (layer - eighth) % 3 == 2
