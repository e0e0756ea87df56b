"""A GGUF file of this folder as the start of further training: weights and vocabulary back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from gguf import GGUFReader, ReaderTensor
from gguf.quants import dequantize
from tokenizers import Tokenizer
from torch import Tensor

from tools.tiny_coder.model import Shape, TinyCoder
from tools.tiny_coder.tokenizer import SPECIAL, build_tokenizer

_PARTS = {
    "attention_norm": ["attn_norm"],
    "query_key_value": ["attn_q", "attn_k", "attn_v"],
    "query_norm": ["attn_q_norm"],
    "key_norm": ["attn_k_norm"],
    "attention_output": ["attn_output"],
    "feed_forward_norm": ["ffn_norm"],
    "gate_up": ["ffn_gate", "ffn_up"],
    "down": ["ffn_down"],
}
"""Our parameters and the tensors of which each is made, as `export` takes them apart."""


def read_model(path: Path) -> TinyCoder:
    """The model with the file's weights; what Q8_0 rounded off stays lost.

    Raises:
        KeyError: the file is not one that `export` wrote.
    """
    tensors = {tensor.name: _values(tensor) for tensor in GGUFReader(path).tensors}
    model = TinyCoder(Shape())
    weights = {
        "embedding.weight": tensors["token_embd.weight"],
        "norm.weight": tensors["output_norm.weight"],
    }
    for layer in range(model.shape.layers):
        for name, parts in _PARTS.items():
            joined = [tensors[f"blk.{layer}.{part}.weight"] for part in parts]
            weights[f"blocks.{layer}.{name}.weight"] = torch.cat(joined)
    model.load_state_dict(weights)
    return model


def read_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer inside the file.

    Raises:
        KeyError: the file has no vocabulary.
    """
    fields = GGUFReader(path).fields
    tokens: list[str] = fields["tokenizer.ggml.tokens"].contents()
    merges: list[str] = fields["tokenizer.ggml.merges"].contents()
    vocabulary = {token: number for number, token in enumerate(tokens) if token not in SPECIAL}
    pairs = [(left, right) for left, right in (merge.split(" ") for merge in merges)]
    return build_tokenizer(vocabulary, pairs)


def _values(tensor: ReaderTensor) -> Tensor:
    values = dequantize(tensor.data, tensor.tensor_type)
    return torch.from_numpy(np.array(values, np.float32))
