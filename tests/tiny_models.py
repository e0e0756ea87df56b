"""Models with random weights and a few small layers, one per way in which a model keeps its past.

They only have to load and to write words that depend on all that they read: a state that was
restored wrongly then shows in the answer. The tokenizer is that of the embedded model.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import gguf
import numpy as np
import numpy.typing as npt

from agent.core.config import embedded_model

Kind = Literal["recurrent", "hybrid", "window"]
Array = npt.NDArray[np.float32]

WINDOW = 256
"""Tokens that the layers of the model of kind `window` look back, all but the last."""
_CONTEXT = 4096
_WIDTH, _HEADS, _HIDDEN = 64, 4, 96
_HEAD = _WIDTH // _HEADS
_INNER, _STATE, _CONVOLUTION, _RANK = 2 * _WIDTH, 16, 4, 4
_WORD = re.compile("\u0120[a-z]+")
"""The blank of byte-level BPE, then letters."""
_LOGIT_SPREAD = 4.0

_ARCHITECTURE = {"recurrent": "mamba", "hybrid": "jamba", "window": "gemma3"}
_LAYERS = {
    "recurrent": ("mamba", "mamba"),
    "hybrid": ("mamba", "attention", "mamba", "attention"),
    # This architecture looks back without limit in every sixth layer.
    "window": ("attention",) * 6,
}


def write_tiny_model(kind: Kind, path: Path) -> None:
    """Write the model; always the same bytes."""
    writer = gguf.GGUFWriter(path, _ARCHITECTURE[kind])
    tokens = _copy_tokenizer(writer)
    _describe(writer, kind)
    for name, values in _tensors(kind, tokens):
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _copy_tokenizer(writer: gguf.GGUFWriter) -> list[str]:
    """Tokenizer and chat template of the embedded model; its tokens."""
    fields = _embedded_fields()
    for name, (value, kind, items) in fields.items():
        writer.add_key_value(name, value, kind, sub_type=items)
    tokens: list[str] = fields["tokenizer.ggml.tokens"][0]
    return tokens


@functools.cache
def _embedded_fields() -> dict[str, tuple[Any, gguf.GGUFValueType, gguf.GGUFValueType | None]]:
    reader = gguf.GGUFReader(embedded_model())
    return {
        name: (field.contents(), field.types[0], field.types[-1] if field.types[1:] else None)
        for name, field in reader.fields.items()
        if name.startswith("tokenizer.")
    }


def _describe(writer: gguf.GGUFWriter, kind: Kind) -> None:
    layers = _LAYERS[kind]
    writer.add_name(f"tiny {kind}")
    writer.add_context_length(_CONTEXT)
    writer.add_embedding_length(_WIDTH)
    writer.add_block_count(len(layers))
    writer.add_feed_forward_length(0 if kind == "recurrent" else _HIDDEN)
    writer.add_layer_norm_rms_eps(1e-5)
    heads = [_HEADS if layer == "attention" else 0 for layer in layers]
    writer.add_head_count(_HEADS if any(heads) else 0)
    writer.add_head_count_kv(heads if any(heads) else 0)
    if "mamba" in layers:
        writer.add_ssm_conv_kernel(_CONVOLUTION)
        writer.add_ssm_inner_size(_INNER)
        writer.add_ssm_state_size(_STATE)
        writer.add_ssm_time_step_rank(_RANK)
    if kind == "window":
        writer.add_key_length(_HEAD)
        writer.add_value_length(_HEAD)
        writer.add_rope_freq_base(10_000.0)
        writer.add_sliding_window(WINDOW)


def _tensors(kind: Kind, tokens: list[str]) -> Iterator[tuple[str, Array]]:
    random = np.random.default_rng(1)

    def matrix(rows: int, columns: int, spread: float = 1.0) -> Array:
        values = random.standard_normal((rows, columns), dtype=np.float32)
        return values * np.float32(spread / np.sqrt(columns))

    def ones(size: int) -> Array:
        return np.ones(size, dtype=np.float32)

    # This architecture multiplies what it reads by the root of its width.
    read = 1.0 if kind == "window" else np.sqrt(_WIDTH)
    yield "token_embd.weight", matrix(len(tokens), _WIDTH, read)
    words = np.array([bool(_WORD.fullmatch(token)) for token in tokens])
    # All other tokens get a logit of 0, which the best of the words is far above.
    yield "output.weight", matrix(len(tokens), _WIDTH, _LOGIT_SPREAD) * words[:, None]
    yield "output_norm.weight", ones(_WIDTH)
    for number, layer in enumerate(_LAYERS[kind]):
        parts: dict[str, Array] = {"attn_norm.weight": ones(_WIDTH)}
        if layer == "mamba":
            parts |= {
                "ssm_in.weight": matrix(2 * _INNER, _WIDTH),
                "ssm_conv1d.weight": matrix(_INNER, _CONVOLUTION, 2.0),
                "ssm_conv1d.bias": np.zeros(_INNER, dtype=np.float32),
                "ssm_x.weight": matrix(_RANK + 2 * _STATE, _INNER, 2.0),
                "ssm_dt.weight": matrix(_INNER, _RANK),
                # Its softplus is how fast the past fades: slowly.
                "ssm_dt.bias": ones(_INNER) * -3,
                "ssm_a": -np.tile(np.arange(1, _STATE + 1, dtype=np.float32) / 8, (_INNER, 1)),
                "ssm_d": ones(_INNER),
                "ssm_out.weight": matrix(_WIDTH, _INNER),
            }
        else:
            parts |= {
                "attn_q.weight": matrix(_WIDTH, _WIDTH, 2.0),
                "attn_k.weight": matrix(_WIDTH, _WIDTH, 2.0),
                "attn_v.weight": matrix(_WIDTH, _WIDTH),
                "attn_output.weight": matrix(_WIDTH, _WIDTH),
            }
        if kind == "hybrid" and layer == "mamba":
            parts |= {
                "ssm_dt_norm.weight": ones(_RANK),
                "ssm_b_norm.weight": ones(_STATE),
                "ssm_c_norm.weight": ones(_STATE),
            }
        if kind == "window":
            parts |= {
                "attn_q_norm.weight": ones(_HEAD),
                "attn_k_norm.weight": ones(_HEAD),
                "post_attention_norm.weight": ones(_WIDTH),
                "post_ffw_norm.weight": ones(_WIDTH),
            }
        if kind != "recurrent":
            parts |= {
                "ffn_norm.weight": ones(_WIDTH),
                "ffn_gate.weight": matrix(_HIDDEN, _WIDTH),
                "ffn_up.weight": matrix(_HIDDEN, _WIDTH),
                "ffn_down.weight": matrix(_WIDTH, _HIDDEN),
            }
        for name, values in parts.items():
            yield f"blk.{number}.{name}", values


def write_split_copy(source: Path, folder: Path, name: str, *, tensors: int) -> list[Path]:
    """Write a model in parts of at most so many tensors, as ``NAME-00001-of-0000N.gguf``; they are
    returned in order."""
    reader = gguf.GGUFReader(source)
    architecture = reader.fields["general.architecture"].contents()
    writer = gguf.GGUFWriter(folder / f"{name}.gguf", architecture, split_max_tensors=tensors)
    for key, value in reader.fields.items():
        if key.startswith("GGUF.") or key == "general.architecture":
            continue
        items = value.types[-1] if value.types[1:] else None
        writer.add_key_value(key, value.contents(), value.types[0], sub_type=items)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return sorted(folder.glob(f"{name}-*-of-*.gguf"))
