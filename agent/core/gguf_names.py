"""What the name of a GGUF file tells, as everybody names them: family, quantisation, part.

``coder-1.5b-Q4_K_M.gguf``, and ``coder-32b-q8_0-00001-of-00003.gguf`` for the first of three parts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_PART = re.compile(r"-(?P<part>\d{5})-of-(?P<parts>\d{5})\Z")
_QUANTISATION = re.compile(
    r"[-._]((?:ud-|i1-)?(?:iq\d|q\d|tq\d|mxfp4|nvfp4|b?f16|fp16|f32|fp32)\w*)\Z", re.IGNORECASE
)


@dataclass(frozen=True, kw_only=True)
class GgufName:
    """The parts of a file's name."""

    family: str
    """Model and size, without quantisation and part."""
    quantisation: str
    """In upper case; empty where the name tells none."""
    part: int = 1
    parts: int = 1

    @classmethod
    def of(cls, file: str) -> GgufName:
        """The parts of a file's name, with its ending or without."""
        stem = whole_name(file)
        found = _QUANTISATION.search(stem)
        split = _PART.search(file.removesuffix(".gguf"))
        return cls(
            family=_QUANTISATION.sub("", stem),
            quantisation=found[1].upper() if found else "",
            part=int(split["part"]) if split else 1,
            parts=int(split["parts"]) if split else 1,
        )


def whole_name(file: str) -> str:
    """The name without ending and part: the same for all parts of a model."""
    return _PART.sub("", file.removesuffix(".gguf"))
