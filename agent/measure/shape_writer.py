"""Write a GGUF that has the shape of a real model, and random weights.

For measurements where the real weights are out of reach: every matrix has the size that it has in
the real model, so a token costs the same arithmetic and the same memory traffic.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np

from agent.measure.model_shapes import Shape, tensors_of
from agent.measure.shape_mix import QUANTISATIONS, file_bytes, stored_as, stored_bytes
from agent.measure.shape_vocabulary import Vocabulary
from agent.measure.shape_weights import Weights


def write_shape_model(
    shape: Shape,
    output: Path,
    *,
    quantisation: str = "q8_0",
    layers: int | None = None,
    seed: int = 0,
    watch: Callable[[int, int], None] = lambda _done, _whole: None,
) -> None:
    """Write the model, tensor by tensor, beside its place and then rename it.

    An existing file is replaced. With `layers` it has fewer layers than the shape and says so in
    its name. `watch` is told of the bytes of tensors that are written, and of all.
    """
    kept = shape.layers if layers is None else layers
    if not 1 <= kept <= shape.layers:
        raise ValueError(f"{shape.name} has {shape.layers} layers; {kept} of them cannot be kept")
    # llama.cpp asks a model with "phi-3" in its name for special tokens that this one lacks.
    name = f"{shape.name.replace('-', ' ')} shape, random weights"
    if kept < shape.layers:
        name += f", {kept} of {shape.layers} layers"
    shape = replace(shape, layers=kept)
    vocabulary = Vocabulary(shape.vocabulary)
    weights = Weights(shape, quantisation, vocabulary.words, seed)
    output.parent.mkdir(parents=True, exist_ok=True)
    temporary = output.with_name(output.name + ".tmp")
    writer = gguf.GGUFWriter(temporary, shape.architecture)
    _describe(writer, shape, name, quantisation)
    vocabulary.describe(writer)
    for tensor, size in tensors_of(shape):
        kind = stored_as(shape, quantisation, tensor, size)
        stored = stored_bytes(kind, size)
        writer.add_tensor_info(tensor, size, np.dtype(np.float32), stored, raw_dtype=kind)
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        done, whole = 0, file_bytes(shape, quantisation)
        for tensor, size in tensors_of(shape):
            data = weights.make(tensor, size)
            writer.write_tensor_data(data)
            done += data.nbytes
            watch(done, whole)
        writer.close()
        temporary.replace(output)
    finally:
        writer.close()
        temporary.unlink(missing_ok=True)


def _describe(writer: gguf.GGUFWriter, shape: Shape, name: str, quantisation: str) -> None:
    writer.add_name(name)
    writer.add_description("Random weights in the shape of a real model; for measurements only")
    writer.add_file_type(QUANTISATIONS[quantisation][1])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_vocab_size(shape.vocabulary)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.key_value_heads)
    writer.add_rope_dimension_count(shape.head_width)
    writer.add_rope_freq_base(shape.rope_base)
    writer.add_layer_norm_rms_eps(shape.epsilon)
    if shape.architecture == "phi3":
        writer.add_rope_scaling_orig_ctx_len(shape.context)
    if shape.sliding_window is not None:
        writer.add_sliding_window(shape.sliding_window)
