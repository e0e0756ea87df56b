"""Other quantisations of a model on this disk.

They are told by their names, as everybody names them (``coder-1.5b-q8_0.gguf`` and
``coder-1.5b-Q4_K_M.gguf``), and believed when their headers show the same network.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from agent.core.config import model_folders
from agent.core.errors import ModelError
from agent.core.gguf_info import GgufInfo, read_gguf
from agent.core.gguf_names import GgufName


def smaller_quantisations(model: Path, info: GgufInfo) -> Iterator[tuple[Path, GgufInfo]]:
    """Those beside the model and in the model cache that are smaller, the largest first."""
    family = _family(model)
    folders = dict.fromkeys((model.parent, *model_folders()))
    found = []
    for path in (path for folder in folders for path in _named_gguf(folder)):
        if path != model and _family(path) == family:
            try:
                other = read_gguf(path)
            except ModelError:
                continue  # damaged or incomplete, so nobody can use it
            if other.model_size < info.model_size and _network(other) == _network(info):
                found.append((path, other))
    yield from sorted(found, key=lambda each: (-each[1].model_size, each[0]))


def _named_gguf(folder: Path) -> list[Path]:
    try:
        return sorted(folder.glob("*.gguf"))
    except OSError:
        return []


def _family(path: Path) -> tuple[str, bool]:
    """The name without quantisation, and whether the file can be opened first."""
    name = GgufName.of(path.name)
    return name.family.lower(), name.part == 1


def _network(info: GgufInfo) -> tuple[object, ...]:
    return (
        *(info.architecture, info.block_count, info.embedding_length, info.vocabulary),
        *(info.head_count, info.key_values, info.feed_forward_length, info.context_length),
    )
