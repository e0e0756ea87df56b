"""The coding models that we know by name: where they are published, and what they need.

``agent/models/catalogue.toml`` has them, the best first; ``models.toml`` in the user's
configuration folder, in the same form, adds models or takes the place of some.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from agent.core.config import user_catalogue
from agent.core.errors import ModelError, SettingsError
from agent.core.model_name import USUAL, ModelName

PACKAGED = Path(__file__).parent.parent / "models" / "catalogue.toml"
Count = Annotated[int, Field(gt=0)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Network(_Strict):
    """The sizes of a model, under their names in its config.json as far as it has them."""

    architecture: str
    """As llama.cpp calls it."""
    num_hidden_layers: Count
    hidden_size: Count
    num_attention_heads: Count
    num_key_value_heads: Count
    head_dim: Count
    feed_forward: Count
    """intermediate_size; in a mixture of experts, of all experts that are asked for a token."""
    vocab_size: Count
    max_position_embeddings: Count
    tie_word_embeddings: bool


class Entry(_Strict):
    """A model."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    repository: str = Field(pattern=r"^[\w.-]+/[\w.-]+$")
    licence: str
    """As the hub abbreviates it."""
    parameters: float = Field(gt=0)
    """Thousand millions, as its makers count them."""
    active: float | None = Field(default=None, gt=0)
    """Those of them that are read for a token, where that is not all: in a mixture of experts."""
    quantisation: str = USUAL
    """Taken when none is named."""
    sizes: Mapping[str, Count] = {}
    """Bytes of all files per quantisation, as far as we have a source for them."""
    network: Network | None = None
    """None: nobody told, so its need of memory is not known before it is here."""
    note: str = ""
    """Whom it suits."""
    sources: tuple[str, ...] = ()
    """Addresses where what stands here can be looked up."""

    @model_validator(mode="after")
    def _has_its_size(self) -> Self:
        if self.sizes and self.quantisation not in self.sizes:
            raise ValueError(f"sizes has no {self.quantisation}, which is its quantisation")
        return self

    @property
    def size(self) -> int | None:
        """Bytes in the quantisation that is taken when none is named."""
        return self.sizes.get(self.quantisation)


class _File(_Strict):
    model: tuple[Entry, ...] = ()


def read_catalogue(path: Path) -> tuple[Entry, ...]:
    """The entries of a catalogue file. Raises SettingsError that names file, entry and key."""
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: cannot be read: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{path}: {error}", fix="Correct the TOML at that place.") from None
    for key in data:
        if key != "model":
            raise SettingsError(
                f"{path}: unknown key {key}", fix="Begin every model with [[model]]."
            )
    if isinstance(data.get("model"), dict):
        raise SettingsError(f"{path}: model is one table", fix="Begin every model with [[model]].")
    try:
        return _File.model_validate(data).model
    except ValidationError as error:
        problem = error.errors()[0]
        said = problem["msg"].removeprefix("Value error, ")
        raise SettingsError(
            f"{path}: {_place(problem['loc'], data)}: {said}",
            fix=f"Compare it with the entries of {PACKAGED}.",
        ) from None


@cache
def catalogue() -> tuple[Entry, ...]:
    """Ours and the user's; an entry of the user takes the place of ours of the same name, others
    come first. Raises SettingsError."""
    ours, own = read_catalogue(PACKAGED), user_catalogue()
    theirs = {entry.name: entry for entry in read_catalogue(own)} if own.exists() else {}
    merged = [theirs.pop(entry.name, entry) for entry in ours]
    return (*theirs.values(), *merged)


def find_entry(name: ModelName) -> Entry | None:
    """The entry of a name, or of the repository that it names."""
    for entry in catalogue():
        if name.name.lower() in (entry.name, entry.repository.lower()):
            return entry
    return None


def repository_of(name: ModelName) -> str:
    """The repository that a name leads to. Raises ModelError for a name that nobody has."""
    if name.is_repository:
        return name.name
    entry = find_entry(name)
    if entry is None:
        raise ModelError(
            Path(str(name)), "no such name in the catalogue of models", fix=nearest(name.name)
        )
    return entry.repository


def usual_of(name: ModelName) -> str:
    """The quantisation that is taken when the name has none."""
    entry = find_entry(name)
    return entry.quantisation if entry else USUAL


def nearest(name: str) -> str:
    """What somebody may have meant by a name that is none."""
    names = [entry.name for entry in catalogue()]
    near = difflib.get_close_matches(name.lower(), names, n=3, cutoff=0.4)
    if near:
        return f"Did you mean {' or '.join(near)}? `turbo models list` shows all."
    return "`turbo models list` shows all; or name owner/repository:QUANTISATION of the hub."


def _place(path: Sequence[int | str], data: Mapping[str, Any]) -> str:
    """An entry and a key in it, in words."""
    words = [str(each) for each in path]
    if len(path) > 1 and isinstance(path[1], int):
        entry = data["model"][path[1]]
        name = entry.get("name") if isinstance(entry, dict) else None
        words = [f"model {name or f'number {path[1] + 1}'}", *words[2:]]
    return ": ".join(words)
