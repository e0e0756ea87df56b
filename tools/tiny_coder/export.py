"""A checkpoint as GGUF: f32 norms, Q8_0 matrices, tokenizer and chat template inside."""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType, LlamaFileType
from torch import Tensor

from tools.tiny_coder.model import EPSILON, Shape, TinyCoder
from tools.tiny_coder.tokenizer import CHAT_TEMPLATE, END_OF_TEXT, TURN_END

NAME = "tiny-coder"
_DESCRIPTION = "Demonstration model, trained from nothing on synthetic Python tasks"
_CONTEXT = 4096
_NORMAL, _CONTROL = gguf.TokenType.NORMAL, gguf.TokenType.CONTROL


@dataclass(frozen=True)
class Vocabulary:
    """The tokenizer as GGUF stores it."""

    tokens: list[str]
    types: list[int]
    merges: list[str]
    special: dict[str, int]

    @classmethod
    def read(cls, path: Path) -> Vocabulary:
        """Take a ``tokenizer.json`` apart."""
        description: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        by_id = {number: token for token, number in description["model"]["vocab"].items()}
        special = {entry["content"]: entry["id"] for entry in description["added_tokens"]}
        by_id.update({number: token for token, number in special.items()})
        numbers = sorted(by_id)
        if numbers != list(range(len(numbers))):
            raise ValueError(f"{path}: token ids are not consecutive")
        return cls(
            tokens=[by_id[number] for number in numbers],
            types=[int(_CONTROL if by_id[n] in special else _NORMAL) for n in numbers],
            merges=[
                merge if isinstance(merge, str) else " ".join(merge)
                for merge in description["model"]["merges"]
            ],
            special=special,
        )


def load_model(*checkpoints: Path) -> TinyCoder:
    """The model of a checkpoint, or the mean of several of one run, ready to answer."""
    stored = [torch.load(checkpoint, map_location="cpu") for checkpoint in checkpoints]
    weights = {
        name: torch.stack([one["model"][name] for one in stored]).mean(0)
        for name in stored[0]["model"]
    }
    model = TinyCoder(Shape(**stored[0]["shape"]))
    model.load_state_dict(weights)
    return model.eval()


def export_gguf(model: TinyCoder, vocabulary: Vocabulary, output: Path) -> None:
    """Write the file beside its place first, so that a reader never sees half of it."""
    temporary = output.with_suffix(".tmp")
    writer = gguf.GGUFWriter(str(temporary), "qwen3")
    _add_description(writer, model.shape)
    _add_vocabulary(writer, vocabulary)
    for name, tensor in _named_tensors(model):
        _add_tensor(writer, name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    temporary.replace(output)


def _add_description(writer: gguf.GGUFWriter, shape: Shape) -> None:
    writer.add_name(NAME)
    writer.add_description(_DESCRIPTION)
    writer.add_context_length(_CONTEXT)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.key_value_heads)
    writer.add_key_length(shape.head_width)
    writer.add_value_length(shape.head_width)
    writer.add_rope_freq_base(shape.rope_base)
    writer.add_layer_norm_rms_eps(EPSILON)
    writer.add_vocab_size(shape.vocabulary)
    writer.add_file_type(LlamaFileType.MOSTLY_Q8_0)


def _add_vocabulary(writer: gguf.GGUFWriter, vocabulary: Vocabulary) -> None:
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    writer.add_token_merges(vocabulary.merges)
    writer.add_bos_token_id(vocabulary.special[END_OF_TEXT])
    writer.add_eos_token_id(vocabulary.special[TURN_END])
    writer.add_pad_token_id(vocabulary.special[END_OF_TEXT])
    writer.add_add_bos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)


def _named_tensors(model: TinyCoder) -> list[tuple[str, Tensor]]:
    """The tensors by their GGUF names; no output matrix, llama.cpp then uses the embedding."""
    shape, stored = model.shape, model.state_dict()
    named = [
        ("token_embd.weight", stored["embedding.weight"]),
        ("output_norm.weight", stored["norm.weight"]),
    ]
    for layer in range(shape.layers):
        own = {
            name: stored[f"blocks.{layer}.{name}.weight"]
            for name, _ in model.blocks[layer].named_children()
        }
        query, key, value = own["query_key_value"].split(
            [shape.query_width, shape.key_width, shape.key_width]
        )
        gate, up = own["gate_up"].split([shape.feed_forward, shape.feed_forward])
        parts = {
            "attn_norm": own["attention_norm"],
            "attn_q": query,
            "attn_k": key,
            "attn_v": value,
            "attn_output": own["attention_output"],
            "attn_q_norm": own["query_norm"],
            "attn_k_norm": own["key_norm"],
            "ffn_norm": own["feed_forward_norm"],
            "ffn_gate": gate,
            "ffn_up": up,
            "ffn_down": own["down"],
        }
        named += [(f"blk.{layer}.{name}.weight", part) for name, part in parts.items()]
    return named


def _add_tensor(writer: gguf.GGUFWriter, name: str, tensor: Tensor) -> None:
    values = tensor.float().contiguous().numpy()
    if values.ndim == 1:
        writer.add_tensor(name, values.astype(np.float32))
        return
    quantized = gguf.quants.quantize(values, GGMLQuantizationType.Q8_0)
    writer.add_tensor(name, quantized, raw_dtype=GGMLQuantizationType.Q8_0)


def main() -> None:
    """``python -m tools.tiny_coder.export TOKENIZER OUTPUT CHECKPOINT...``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tokenizer", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("checkpoints", type=Path, nargs="+", help="their mean is exported")
    chosen = parser.parse_args()
    export_gguf(load_model(*chosen.checkpoints), Vocabulary.read(chosen.tokenizer), chosen.output)
    print(f"{chosen.output}: {chosen.output.stat().st_size} bytes")


if __name__ == "__main__":
    main()
