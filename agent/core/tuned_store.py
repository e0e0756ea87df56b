"""What `turbo tune` has found for a model, a llama-server and a machine, kept until one changes.

A file per subject in the cache. The launch plan reads it at every start; a file that is not what it
should be is ignored, and the user is told.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
from pydantic import ValidationError

from agent.core.answer_cache import entry_of, remember, remembered
from agent.core.config import Settings
from agent.core.errors import SettingsError
from agent.core.hardware import Hardware
from agent.core.llamacpp_binary import Binary

TUNABLE = frozenset(
    f"llamacpp_{name}"
    for name in (
        *("parallel", "threads", "threads_batch", "ubatch_size", "flash_attention"),
        *("cache_type_k", "cache_type_v", "speculation"),
    )
)
"""Settings that are measured; no other may stand in a stored result."""
FOLDER = "tuning"
"""Of the cache."""
_FORMAT = 1
_PLACING = ("profile", "n_gpu_layers", "kv_offload", "main_gpu", "split_mode", "tensor_split")
"""Settings that say what is computed where: with others something else is fastest."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What a result holds for."""

    model: str
    """Path, size and time of the last change of its file."""
    binary: str
    """See `Binary.stamp`."""
    machine: str
    placing: str
    """What was asked for of devices."""

    @property
    def question(self) -> str:
        """Another one for another subject."""
        return json.dumps([FOLDER, _FORMAT, *asdict(self).values()])


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """A stored result."""

    values: Mapping[str, Any]
    """By the names of settings; those that are not there are the fastest as they are."""
    gain: float
    """How many times faster than the default, on the mix of a workflow."""
    found_on: str
    """Day and time, for people."""


def subject_of(settings: Settings, model: Path, binary: Binary, hardware: Hardware) -> Subject:
    """What a result for this launch would hold for. `hardware` with its devices, if they are used.

    Raises OSError when the model cannot be looked at."""
    about = model.stat()
    devices = [[each.name, each.description, each.memory] for each in hardware.devices]
    memory = psutil.virtual_memory().total
    return Subject(
        model=json.dumps([str(model.resolve()), about.st_size, about.st_mtime_ns]),
        binary=binary.stamp,
        machine=json.dumps([hardware.cpu, hardware.physical_cores, memory, devices]),
        placing=json.dumps([getattr(settings, f"llamacpp_{name}") for name in _PLACING]),
    )


def load_tuned(folder: Path, subject: Subject) -> Tuned | None:
    """The stored result; None without one. Raises SettingsError when its file is damaged."""
    path = entry_of(folder, subject.question)
    if not path.exists():
        return None
    try:
        kept = remembered(folder, subject.question) or {}
        values = kept["values"]
        checked = Settings(**values)
        if not values.keys() <= TUNABLE:
            raise ValueError("settings that are never tuned")
        return Tuned(
            values={name: getattr(checked, name) for name in values},
            gain=float(kept["gain"]),
            found_on=str(kept["found_on"]),
        )
    except (ValidationError, KeyError, TypeError, ValueError, AttributeError):
        raise SettingsError(
            f"The stored tuning {path} is damaged.",
            fix="turbo tune measures again; turbo tune --forget removes it.",
        ) from None


def store_tuned(folder: Path, subject: Subject, tuned: Tuned) -> Path:
    """Keep a result in place of the last one; its file. Raises SettingsError when that fails."""
    answer = {**asdict(tuned), "values": dict(tuned.values), "subject": asdict(subject)}
    remember(folder, subject.question, answer)
    path = entry_of(folder, subject.question)
    if remembered(folder, subject.question) != answer:
        raise SettingsError(
            f"The result cannot be kept in {path}.",
            fix="Make room on that disk, or set XDG_CACHE_HOME to a folder of yours.",
        )
    return path


def forget_tuned(folder: Path, subject: Subject) -> bool:
    """Remove the result; whether there was one. Raises OSError."""
    path = entry_of(folder, subject.question)
    there = path.exists()
    path.unlink(missing_ok=True)
    return there
