"""The header of a GGUF file: what the launch plan must know, and whether the file is whole.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, constants of gguf-py. The file
is read from the front in a bounded way; nothing in it is trusted. That matters because llama-server
says little about a damaged file, and only after seconds.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NoReturn

from agent.core.config import embedded_model, model_folders
from agent.core.errors import ModelError
from agent.core.gguf_reader import ForeignGguf, GgufHeader, MalformedGguf, read_header
from agent.core.terminal import printable

_FETCH_AGAIN = "Fetch the file again; a broken download is the usual cause."
_TAKE_ANOTHER = "Take another edition of the model: GGUF version 2 or 3, little-endian."
_CHOOSE = "Set LLAMACPP_MODEL_PATH or --model to one of them."
_NO_MODEL = "Set LLAMACPP_MODEL_PATH or --model to a *.gguf file; unset: the embedded model."
_LISTED = 20
"""Models that an error names at most."""

_MOST = 100_000
"""Layers, heads and the like that no model comes near."""
_WITHOUT_HEADS = ("mamba", "rwkv", "arwkv")
"""How architectures begin that have no attention and say so."""

_LOOKALIKES = (
    (b"version https://git-lfs", "a pointer of Git LFS, not the file itself; run: git lfs pull"),
    (b"<!doctype html", "an HTML page, so the download failed"),
    (b"<html", "an HTML page, so the download failed"),
    (b"PK\x03\x04", "a zip archive or PyTorch checkpoint; llama.cpp needs GGUF"),
    (b"ggjt", "a model of a format before GGUF; llama.cpp no longer reads it"),
)
_PART = re.compile(r"^(?P<stem>.+)-\d{5}-of-(?P<count>\d{5})\.gguf$")


@dataclass(frozen=True, kw_only=True)
class GgufInfo:
    """Facts of a model file. A number is 0 when the file does not tell it."""

    version: int
    """Of the format, 2 or 3."""
    architecture: str
    name: str
    """As its maker calls it; the file's name when it has none."""
    file_size: int
    """Bytes of this file (of this part, when the model is split)."""
    parameters: int
    """Elements of all tensors in this file."""
    context_length: int
    """Tokens that the model was trained for."""
    block_count: int
    embedding_length: int
    head_count: int
    head_count_kv: int
    """The largest of all layers."""
    key_length: int
    """Of one head; derived from embedding and heads when the file does not tell it."""
    value_length: int
    sliding_window: int
    """Tokens that a layer looks back, where that is not the whole context."""
    embedding: bool
    """It computes embeddings and cannot write text."""
    model_size: int = 0
    """Bytes of all parts."""
    layer_bytes: int = 0
    """Weights of all layers together, in this file."""
    repacked_bytes: int = 0
    """Of them, those that a CPU build copies into another order, so that no page of the file is
    behind them any more."""
    input_bytes: int = 0
    """The embedding of tokens, in this file."""
    tied: bool = False
    """The embedding of tokens is the output matrix, too."""
    key_values: tuple[int, int] = (0, 0)
    """Elements of keys and of values that one token adds to the KV cache, all layers together."""
    feed_forward_length: int = 0
    """Of one token: in a mixture of experts, of all experts that are asked."""
    vocabulary: int = 0


def read_gguf(path: Path) -> GgufInfo:
    """Read and check the header of `path`.

    Raises ModelError when there is no such file, when it is no GGUF, or when it is cut off.
    """
    try:
        about = path.stat()
        if stat.S_ISDIR(about.st_mode):
            _refuse_folder(path)
        if not stat.S_ISREG(about.st_mode):  # a pipe that nobody writes to would never open
            raise ModelError(path, "a pipe or a device, not a model file", fix=_NO_MODEL)
        size = about.st_size
        with path.open("rb", buffering=1 << 18) as file:
            header = _header(path, file, size)
    except FileNotFoundError:
        raise ModelError(
            path, "no such file", available=available_models(path.parent), fix=_CHOOSE
        ) from None
    except OSError as error:
        reason = f"cannot be read: {error.strerror or error}"
        raise ModelError(path, reason, fix=_NO_MODEL) from None
    if header.data_end > size:
        raise ModelError(
            path,
            f"cut off: it has {size:,} bytes of at least {header.data_end:,}",
            fix=_FETCH_AGAIN,
        )
    return _info(path, size, _size_of_parts(path) or size, header)


def _refuse_folder(path: Path) -> NoReturn:
    inside = _models_in(path)
    raise ModelError(
        path,
        "a folder, not a model file",
        available=inside,
        fix=_CHOOSE if inside else _NO_MODEL,
    )


def is_split(path: Path) -> bool:
    """Whether the file is one of several parts, by its name."""
    return _PART.match(path.name) is not None


def available_models(folder: Path) -> tuple[Path, ...]:
    """GGUF files beside the one that was asked for, those of our model cache, the embedded one."""
    folders = dict.fromkeys((folder, *model_folders()))
    found = [*(path for each in folders for path in _models_in(each)), embedded_model()]
    return tuple(x for x in dict.fromkeys(found) if _is_whole(x))[:_LISTED]


def _is_whole(path: Path) -> bool:
    try:
        size = path.stat().st_size if path.is_file() else 0
        if not size:
            return False
        with path.open("rb", buffering=1 << 18) as file:
            magic = file.read(4)
            file.seek(0)
            return magic == b"GGUF" and read_header(file, size).data_end <= size
    except (OSError, MalformedGguf):
        return False


def _models_in(folder: Path) -> tuple[Path, ...]:
    try:
        return tuple(x for x in sorted(folder.glob("*.gguf"))[:_LISTED] if _is_whole(x))
    except OSError:
        return ()


def _header(path: Path, file: BinaryIO, size: int) -> GgufHeader:
    start = file.read(64)
    if not start.startswith(b"GGUF"):
        raise ModelError(path, _what_else(start), fix="Give a *.gguf file.")
    file.seek(0)
    try:
        return read_header(file, size)
    except ForeignGguf as problem:
        raise ModelError(path, str(problem), fix=_TAKE_ANOTHER) from None
    except MalformedGguf as problem:
        raise ModelError(path, str(problem), fix=_FETCH_AGAIN) from None


def _what_else(start: bytes) -> str:
    if not start:
        return "an empty file"
    for prefix, meaning in _LOOKALIKES:
        if start.lower().startswith(prefix.lower()):
            return f"not a GGUF file: {meaning}"
    shown = start[:4].decode("ascii", errors="backslashreplace")
    text = shown if shown.isprintable() else start[:4].hex(" ")
    return f'not a GGUF file: it begins with "{text}", not with GGUF'


def _size_of_parts(path: Path) -> int:
    """Bytes of all parts of a split model; 0 for one that is not split. llama.cpp opens the other
    parts by name, from the first one."""
    part = _PART.match(path.name)
    if part is None:
        return 0
    count = int(part["count"])
    size = 0
    for index in range(1, count + 1):
        other = path.with_name(f"{part['stem']}-{index:05}-of-{count:05}.gguf")
        if not other.is_file():
            raise ModelError(path, f"part {other.name} of it is missing", fix=_FETCH_AGAIN)
        size += other.stat().st_size
    return size


def _info(path: Path, size: int, model_size: int, header: GgufHeader) -> GgufInfo:
    values = header.values
    architecture = _text(values, "general.architecture")
    if not architecture:
        raise ModelError(path, "names no general.architecture, so it is no language model")
    kind = _text(values, "general.type")
    if kind in {"mmproj", "adapter"} or architecture == "clip":
        raise ModelError(
            path,
            f"a {kind or 'clip'} file, which goes with a model but is none itself",
            available=available_models(path.parent),
            fix=_CHOOSE,
        )
    _refuse_impossible(path, values, architecture)
    width = _number(values, f"{architecture}.embedding_length")
    heads = _number(values, f"{architecture}.attention.head_count")
    per_head = width // heads if heads else 0
    key_length = _number(values, f"{architecture}.attention.key_length") or per_head
    value_length = _number(values, f"{architecture}.attention.value_length") or per_head
    cached_heads = _cached_heads(values, architecture, heads)
    experts = _number(values, f"{architecture}.expert_used_count")
    asked_experts = experts * _number(values, f"{architecture}.expert_feed_forward_length")
    sizes = header.tensor_bytes
    return GgufInfo(
        version=header.version,
        architecture=_one_line(architecture),
        name=_one_line(_text(values, "general.name")) or path.stem,
        file_size=size,
        parameters=header.parameters,
        context_length=_number(values, f"{architecture}.context_length"),
        block_count=_number(values, f"{architecture}.block_count"),
        embedding_length=width,
        head_count=heads,
        head_count_kv=_number(values, f"{architecture}.attention.head_count_kv") or heads,
        key_length=key_length,
        value_length=value_length,
        sliding_window=_number(values, f"{architecture}.attention.sliding_window"),
        # Reads in both directions: an encoder such as BERT, also where no pooling is named.
        embedding=_number(values, f"{architecture}.pooling_type") > 0
        or values.get(f"{architecture}.attention.causal") is False,
        model_size=model_size,
        layer_bytes=sizes.get("blk", 0),
        repacked_bytes=header.repacked,
        input_bytes=sizes.get("token_embd", 0),
        tied="token_embd" in sizes and "output" not in sizes,
        key_values=(cached_heads * key_length, cached_heads * value_length),
        feed_forward_length=max(
            _number(values, f"{architecture}.feed_forward_length"), asked_experts
        ),
        vocabulary=header.vocabulary,
    )


def _refuse_impossible(path: Path, values: Mapping[str, object], architecture: str) -> None:
    """Refuse sizes that no model has; with them any estimate would say that it fits."""
    keys = ["context_length", "block_count", "embedding_length"]
    if not architecture.startswith(_WITHOUT_HEADS):
        keys.append("attention.head_count")
    for key in keys:
        value = values.get(f"{architecture}.{key}")
        if isinstance(value, bool) or not isinstance(value, int):
            continue
        if value <= 0 or (value > _MOST and key in ("block_count", "attention.head_count")):
            name = _one_line(f"{architecture}.{key}")
            raise ModelError(path, f"damaged: its {name} is {value:,}", fix=_FETCH_AGAIN)


def _one_line(text: str) -> str:
    """What somebody wrote into a file, as it may stand on a terminal."""
    return " ".join(printable(text).split())


def _cached_heads(values: Mapping[str, object], architecture: str, heads: int) -> int:
    """Key-value heads of all layers together; a layer without any keeps no cache."""
    layers = _number(values, f"{architecture}.block_count")
    each = values.get(f"{architecture}.attention.head_count_kv")
    if isinstance(each, tuple):
        return sum(int(x) for x in each if 0 <= x < 1 << 53)
    return layers * (_number(values, f"{architecture}.attention.head_count_kv") or heads)


def _text(values: Mapping[str, object], key: str) -> str:
    value = values.get(key)
    return value if isinstance(value, str) else ""


def _number(values: Mapping[str, object], key: str) -> int:
    value = values.get(key)
    if isinstance(value, tuple):  # one number per layer
        value = max(value, default=0)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0
    # nan and infinity have no integer; no count in a model is negative.
    return int(value) if 0 <= value < 1 << 53 else 0
