"""Write a GGUF that has the shape of a real model, and random weights.

    python benchmarks/shape_model.py SHAPE OUTPUT [--quantisation q8_0|q4_0|f16] [--layers N]

For measurements where the real weights are out of reach: every matrix has the size that it has in
the real model, so a token costs the same arithmetic and the same memory traffic. What such a model
writes means nothing, but it is valid text: English and Python words, each with a blank before it,
never an end of text. For that the rows of the output matrix (tied: of the embedding) are zero for
all other tokens, while the words share logits of a large spread, whose best is far above zero. That
holds for greedy writing and at the usual temperatures too. The spreads of the other matrices are
such that the words keep changing for hundreds of tokens; a loop would be cut off by its reader.

The figures come from the published config.json of Qwen/Qwen2.5-Coder-0.5B-Instruct,
Qwen/Qwen2.5-Coder-1.5B-Instruct and microsoft/Phi-3-mini-4k-instruct (huggingface.co): the fields
num_hidden_layers, hidden_size, num_attention_heads, num_key_value_heads, intermediate_size,
vocab_size, max_position_embeddings, rope_theta, rms_norm_eps, tie_word_embeddings, sliding_window.

The vocabulary is synthetic. A byte-level BPE is learnt from the library reference and some modules
of the Python that runs this (so another Python version gives a slightly different one), and unused
entries fill it up to the real size. With q4_0 the output matrix is Q8_0, as llama-quantize, too,
keeps it more precise than the rest.

Longer than other files here, because it is a tool of its own: sizes, vocabulary and weights in one.
"""

from __future__ import annotations

import argparse
import heapq
import inspect
import math
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from pydoc_data.topics import topics
from typing import Literal

try:
    import gguf
    import numpy as np
    import numpy.typing as npt
    from gguf import GGMLQuantizationType, LlamaFileType, TokenType
except ModuleNotFoundError as missing:
    if __name__ != "__main__":
        raise
    print(f"{missing.name} is not installed; run: pip install 'gguf>=0.17' numpy", file=sys.stderr)
    raise SystemExit(2) from None

Data = npt.NDArray[np.float32] | npt.NDArray[np.float16] | npt.NDArray[np.uint8]

_MERGES = 8000
"""Enough for ordinary text; a real vocabulary also holds what hardly ever occurs."""
_LEARNT_FROM = (
    "argparse",
    "difflib",
    "doctest",
    "inspect",
    "optparse",
    "pydoc",
    "tarfile",
    "typing",
)
_PIECES = re.compile(
    r"(?i:'(?:[sdmt]|ll|ve|re))|[^\r\nA-Za-z0-9]?[A-Za-z]+|[0-9]| ?[^\sA-Za-z0-9]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""What the pre-tokenizer "qwen2" of llama.cpp does to ASCII text."""
_WORD = re.compile("\u0120[A-Za-z]+")
"""The blank of byte-level BPE, then letters: such tokens tokenize to themselves again."""
_END_OF_TEXT, _TURN_START, _TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
_SPECIAL = (_END_OF_TEXT, _TURN_START, _TURN_END)
_CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
_LOGIT_SPREAD = 8.0
"""Standard deviation of the logits of words. The best of thousands is at about three times that,
where the many tokens with logit 0 weigh nothing."""
_ATTENTION_SPREAD = 5.0
"""Of the attention scores. Single tokens are looked at then; with the mean of all, which hardly
changes from token to token, the text settles on one word (tried)."""
_BIAS_SPREAD = 0.1
_DIGIT_SPREAD = {GGMLQuantizationType.Q8_0: 73.9, GGMLQuantizationType.Q4_0: 4.61}
"""Standard deviation of random bytes read as the integers of a block."""
_TYPES = {
    "q8_0": (GGMLQuantizationType.Q8_0, LlamaFileType.MOSTLY_Q8_0),
    "q4_0": (GGMLQuantizationType.Q4_0, LlamaFileType.MOSTLY_Q4_0),
    "f16": (GGMLQuantizationType.F16, LlamaFileType.MOSTLY_F16),
}


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
        return sum(math.prod(size) for _, size in _tensors(self))


SHAPES = {
    shape.name: shape
    for shape in (
        Shape(
            name="qwen2.5-coder-0.5b",
            architecture="qwen2",
            layers=24,
            width=896,
            heads=14,
            key_value_heads=2,
            feed_forward=4864,
            vocabulary=151_936,
            context=32_768,
            rope_base=1_000_000.0,
            epsilon=1e-6,
            tied=True,
        ),
        Shape(
            name="qwen2.5-coder-1.5b",
            architecture="qwen2",
            layers=28,
            width=1536,
            heads=12,
            key_value_heads=2,
            feed_forward=8960,
            vocabulary=151_936,
            context=32_768,
            rope_base=1_000_000.0,
            epsilon=1e-6,
            tied=True,
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


def write_shape_model(
    shape: Shape,
    output: Path,
    *,
    quantisation: str = "q8_0",
    layers: int | None = None,
    seed: int = 0,
) -> None:
    """Write the model, tensor by tensor, beside its place and then rename it.

    An existing file is replaced. With `layers` it has fewer layers than the shape and says so in
    its name.
    """
    kept = shape.layers if layers is None else layers
    if not 1 <= kept <= shape.layers:
        raise ValueError(f"{shape.name} has {shape.layers} layers; {kept} of them cannot be kept")
    # llama.cpp asks a model with "phi-3" in its name for special tokens that this one lacks.
    name = f"{shape.name.replace('-', ' ')} shape, random weights"
    if kept < shape.layers:
        name += f", {kept} of {shape.layers} layers"
    shape = replace(shape, layers=kept)
    vocabulary = _Vocabulary(shape.vocabulary)
    weights = _Weights(shape, quantisation, vocabulary.words, seed)
    output.parent.mkdir(parents=True, exist_ok=True)
    temporary = output.with_name(output.name + ".tmp")
    writer = gguf.GGUFWriter(temporary, shape.architecture)
    _describe(writer, shape, name, quantisation)
    vocabulary.describe(writer)
    for tensor, size in _tensors(shape):
        kind = weights.kind(tensor, size)
        block, width = gguf.GGML_QUANT_SIZES[kind]
        stored = math.prod(size) // block * width
        writer.add_tensor_info(tensor, size, np.dtype(np.float32), stored, raw_dtype=kind)
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for tensor, size in _tensors(shape):
            writer.write_tensor_data(weights.make(tensor, size))
        writer.close()
        temporary.replace(output)
    finally:
        writer.close()
        temporary.unlink(missing_ok=True)


def _describe(writer: gguf.GGUFWriter, shape: Shape, name: str, quantisation: str) -> None:
    writer.add_name(name)
    writer.add_description("Random weights in the shape of a real model; for measurements only")
    writer.add_file_type(_TYPES[quantisation][1])
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


def _tensors(shape: Shape) -> Iterator[tuple[str, tuple[int, ...]]]:
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


class _Weights:
    """Makes the tensors, always the same from one seed."""

    def __init__(self, shape: Shape, quantisation: str, words: list[int], seed: int) -> None:
        self._output = "token_embd.weight" if shape.tied else "output.weight"
        self._type = _TYPES[quantisation][0]
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


class _Vocabulary:
    """A byte-level BPE of exactly `size` tokens: bytes, merges, special tokens, unused ones."""

    def __init__(self, size: int) -> None:
        symbols = _byte_symbols()
        merges = _learn_merges(min(_MERGES, size - len(symbols) - len(_SPECIAL)))
        used = list(dict.fromkeys([*symbols, *(left + right for left, right in merges)]))
        unused = size - len(used) - len(_SPECIAL)
        self._tokens = [*used, *_SPECIAL, *(f"[PAD{x}]" for x in range(unused))]
        self._types = [TokenType.NORMAL] * len(used) + [TokenType.CONTROL] * len(_SPECIAL)
        self._types += [TokenType.UNUSED] * unused
        self._merges = [f"{left} {right}" for left, right in merges]
        self.words = [x for x, token in enumerate(used) if _WORD.fullmatch(token)]

    def describe(self, writer: gguf.GGUFWriter) -> None:
        """Add tokenizer and chat template to the file."""
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("qwen2")
        writer.add_token_list(self._tokens)
        writer.add_token_types(self._types)
        writer.add_token_merges(self._merges)
        writer.add_bos_token_id(self._tokens.index(_END_OF_TEXT))
        writer.add_eos_token_id(self._tokens.index(_TURN_END))
        writer.add_pad_token_id(self._tokens.index(_END_OF_TEXT))
        writer.add_add_bos_token(False)
        writer.add_chat_template(_CHAT_TEMPLATE)


def _byte_symbols() -> list[str]:
    """The printable character of each byte, by the scheme of GPT-2."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    beyond = iter(range(0x100, 0x200))
    return [chr(x if x in printable else next(beyond)) for x in range(0x100)]


def _corpus() -> Iterable[str]:
    library = Path(inspect.__file__).parent
    yield from topics.values()
    for module in _LEARNT_FROM:
        yield (library / f"{module}.py").read_text(encoding="utf-8")


@cache
def _learn_merges(limit: int) -> tuple[tuple[str, str], ...]:
    """The most frequent pair of neighbours becomes one symbol, again and again."""
    symbols = _byte_symbols()
    pieces = Counter(x for text in _corpus() for x in _PIECES.findall(text))
    words = [[symbols[byte] for byte in piece.encode()] for piece in pieces]
    weights = list(pieces.values())
    counts: Counter[tuple[str, str]] = Counter()
    where: defaultdict[tuple[str, str], set[int]] = defaultdict(set)
    for index, word in enumerate(words):
        for pair in pairwise(word):
            counts[pair] += weights[index]
            where[pair].add(index)
    heap = [(-count, pair) for pair, count in counts.items()]
    heapq.heapify(heap)
    merges: list[tuple[str, str]] = []
    while heap and len(merges) < limit:
        negative, best = heapq.heappop(heap)
        if negative != -counts[best]:  # each change of a count pushed a new entry
            continue
        merges.append(best)
        touched: set[tuple[str, str]] = set()
        for index in where.pop(best):
            before = list(pairwise(words[index]))
            words[index] = _merge(words[index], best)
            after = list(pairwise(words[index]))
            for pair in before:
                counts[pair] -= weights[index]
            for pair in after:
                counts[pair] += weights[index]
                where[pair].add(index)
            touched.update(before, after)
        for pair in touched:
            if counts[pair] > 0:
                heapq.heappush(heap, (-counts[pair], pair))
    return tuple(merges)


def _merge(word: list[str], pair: tuple[str, str]) -> list[str]:
    merged: list[str] = []
    position = 0
    while position < len(word):
        length = 2 if tuple(word[position : position + 2]) == pair else 1
        merged.append("".join(word[position : position + length]))
        position += length
    return merged


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("output", type=Path)
    parser.add_argument("--quantisation", choices=_TYPES, default="q8_0")
    parser.add_argument("--layers", type=int, help="keep only so many, for a quick try")
    chosen = parser.parse_args(arguments)
    shape: Shape = SHAPES[chosen.shape]
    layers: int = shape.layers if chosen.layers is None else chosen.layers
    if not 1 <= layers <= shape.layers:
        parser.error(f"--layers: {shape.name} has {shape.layers}, so 1 to {shape.layers} can be")
    try:
        write_shape_model(shape, chosen.output, quantisation=chosen.quantisation, layers=layers)
    except OSError as error:
        sys.exit(f"{chosen.output} cannot be written: {error.strerror or error}")
    print(
        f"{chosen.output}: {chosen.output.stat().st_size:,} bytes, "
        f"{replace(shape, layers=layers).parameters:,} parameters, "
        f"{layers} of {shape.layers} layers, {chosen.quantisation}, random weights"
    )


if __name__ == "__main__":
    main()
