"""Which files of a repository make up a model in one quantisation. Pure."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from agent.core.errors import ModelError
from agent.core.gguf_names import GgufName, whole_name
from agent.core.model_name import USUAL, ModelName

if TYPE_CHECKING:  # what asks the hub pulls in an HTTP client
    from agent.core.model_hub import HubFile, HubRepository

_PLAIN = re.compile(r"[\w.+-]+\.gguf", re.ASCII)
"""Other names have no business in a cache, or on a terminal."""
_NO_MODELS = ("mmproj", "imatrix")
"""GGUF files that go with a model and are none."""
_SHOWN = 5
"""Files that an error names at most."""


@dataclass(frozen=True, kw_only=True)
class Published:
    """A model in one quantisation, as the hub has it."""

    name: str
    """Of its file, without part and ending."""
    quantisation: str
    """In upper case; empty where the name tells none."""
    files: tuple[HubFile, ...]
    """In the order of the parts; the first one is what a server opens."""

    @property
    def size(self) -> int:
        """Bytes of all parts."""
        return sum(file.size for file in self.files)


def file_name(file: HubFile) -> str:
    """Its name here: folders of the repository are left out."""
    return PurePosixPath(file.path).name


def published(repository: HubRepository) -> list[Published]:
    """All whole models of a repository; a file that is whole comes before the same in parts."""
    groups: dict[tuple[str, int], list[HubFile]] = defaultdict(list)
    for file in repository.files:
        name = file_name(file)
        if _PLAIN.fullmatch(name) and not any(x in name.lower() for x in _NO_MODELS):
            groups[whole_name(name), GgufName.of(name).parts].append(file)
    found = []
    for (name, parts), files in sorted(groups.items()):
        ordered = sorted(files, key=lambda x: GgufName.of(file_name(x)).part)
        if [GgufName.of(file_name(x)).part for x in ordered] == list(range(1, parts + 1)):
            quantisation = GgufName.of(file_name(ordered[0])).quantisation
            found.append(Published(name=name, quantisation=quantisation, files=tuple(ordered)))
    return found


def choose(repository: HubRepository, asked: ModelName, usual: str = USUAL) -> Published:
    """The one that is asked for, else `usual`, else the only one.

    Raises ModelError that lists what there is.
    """
    there = published(repository)
    wanted = asked.wanted or usual
    named = [x for x in there if wanted in (x.name, f"{x.name}.gguf")]
    fitting = named or [x for x in there if x.quantisation == wanted.upper()]
    names = {x.name for x in fitting}
    if len(names) == 1:
        return fitting[0]
    if not asked.wanted and len({x.name for x in there}) == 1:
        return there[0]
    path = Path(str(asked))
    if not there and (unusable := _unusable(repository)):
        raise ModelError(
            path,
            f"{repository.name} has GGUF files, but none that can be used: {unusable}",
            fix="Pull it from another repository, or fetch the file yourself and give its path.",
        )
    if not there:
        raise ModelError(
            path,
            f"{repository.name} has no GGUF file",
            fix="Its makers, or others, publish them in a repository that ends in -GGUF.",
        )
    if names:
        raise ModelError(
            path,
            f"{repository.name} has several in {wanted}: {', '.join(sorted(names))}",
            fix=f"Name one of them: {repository.name}:{min(names)}",
        )
    have = listed(x.quantisation or x.name for x in there)
    raise ModelError(
        path, f"{repository.name} has no {wanted}", fix=f"It has {have}; name one after a colon."
    )


def _unusable(repository: HubRepository) -> str:
    """The GGUF files of a repository that has no model for us, each with the reason."""
    paths = [x.path for x in repository.files if x.path.lower().endswith(".gguf")]
    names = [PurePosixPath(path).name for path in paths]
    reasons = []
    for name in dict.fromkeys(names):
        if any(x in name.lower() for x in _NO_MODELS):
            reason = "goes with a model and is none"
        elif not _PLAIN.fullmatch(name):
            reason = "its name has other characters than letters, digits, . _ + - and .gguf"
        elif names.count(name) > 1:
            reason = "several folders have one of that name"
        else:
            reason = "other parts of it are missing"
        reasons.append(f"{ascii(name)[1:-1]} ({reason})")
    more = f" and {len(reasons) - _SHOWN} more" if len(reasons) > _SHOWN else ""
    return "; ".join(reasons[:_SHOWN]) + more


def listed(names: Iterable[str]) -> str:
    """Names, each once, in order."""
    return ", ".join(dict.fromkeys(names))
