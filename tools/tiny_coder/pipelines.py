"""Functions composed of primitives: keep, change, order, reduce (``pipeline.yaml``)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import yaml

from tools.tiny_coder.phrasing import choose, fill
from tools.tiny_coder.words import Split

_SOURCE = Path(__file__).with_name("pipeline.yaml")
_HELD_OUT_PERCENT = 13
_ROUND_CONSTANTS = [15, 20, 25, 40, 50, 64, 75, 99, 100, 128, 250, 500, 1000]

KINDS = {"ints": "ints", "strs": "strs", "text": "str", "num": "int", "dict": "dict"}
"""Kind of argument value for each pipeline input."""
_INPUT_WEIGHTS = {"ints": 38, "strs": 20, "text": 20, "num": 11, "dict": 11}
_NOUN_CHAINS = (
    ["filter", "reduce"], ["filter", "map", "reduce"], ["map", "reduce"], ["filter", "map"],
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Primitive:
    """One operation of a pipeline."""

    name: str
    label: str
    """The word that a meaningful function name uses for it."""
    input: str
    output: str
    kind: str
    code: str
    say: tuple[str, ...]
    nouns: tuple[str, ...]
    constants: dict[str, Any]

    def draw_constants(self, random: Random) -> dict[str, Any]:
        """A value for each constant; wide ranges sometimes give a large round number."""
        return {name: _constant(random, spec) for name, spec in self.constants.items()}


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """Primitives with their constants: what the code does and how to ask for it."""

    source: str
    steps: list[tuple[Primitive, dict[str, Any]]]

    @property
    def primitives(self) -> list[Primitive]:
        """The steps without their constants."""
        return [primitive for primitive, _ in self.steps]

    @property
    def identity(self) -> str:
        """The names of the primitives in order."""
        return "pipe:" + ">".join(primitive.name for primitive in self.primitives)

    @property
    def meaningful_names(self) -> list[str]:
        """Function names that say what the pipeline does."""
        labels = [primitive.label for primitive in self.primitives]
        joined = ["_".join(part) for part in (labels, labels[::-1], labels[-1:], labels[-2:])]
        return [f"{name}_it" if name == labels[-1] else name for name in joined]

    @property
    def hints(self) -> list[Any]:
        """Values near which the inputs become interesting."""
        if self.source == "strs":
            letters = [str(drawn["C"]) for _, drawn in self.steps if "C" in drawn]
            starts = [letter + end for letter in letters for end in ("at", "o", "lis")]
            return starts + [start + letter for letter in letters for start in ("a", "ro")]
        return [drawn["K"] for _, drawn in self.steps if "K" in drawn]

    @property
    def argument_kind(self) -> str:
        """Kind of value that the one argument takes."""
        splits_at_commas = any(primitive.name == "commas" for primitive in self.primitives)
        return "csv" if splits_at_commas and self.source == "text" else KINDS[self.source]

    def code(self, argument: str) -> str:
        """The function's body."""
        lines, variable = [], argument
        for position, (primitive, drawn) in enumerate(self.steps):
            expression = fill(primitive.code, {**drawn, "v": variable})
            last = position == len(self.steps) - 1
            lines.append(f"return {expression}" if last else f"result = {expression}")
            variable = "result"
        return "\n".join(lines)

    def describe(self, random: Random) -> str:
        """A sentence in the imperative, with ``{a}`` where the argument stands."""
        kinds = [primitive.kind for primitive in self.primitives]
        nounable = kinds in _NOUN_CHAINS and all(p.nouns for p in self.primitives)
        if nounable and random.random() < 0.4:
            return self._describe_as_noun(random)
        phrases = [self._phrase(random, position) for position in range(len(self.steps))]
        return self._connect(random, phrases)

    def _describe_as_noun(self, random: Random) -> str:
        elements = ["number", "value"] if self.source == "ints" else ["word", "string"]
        element = random.choice(elements)
        noun = ""
        for primitive, drawn in self.steps:
            own = fill(choose(random, random.choice(primitive.nouns)), drawn)
            if primitive.kind == "filter":
                noun = f"the {own} {random.choice(['in', 'of', 'from'])} {{a}}"
            elif primitive.kind == "map":
                everything = choose(random, f"[all|the] {element}s in {{a}}")
                noun = f"the {own} of {noun or everything}"
            else:
                noun = f"the {own} {noun or '{a}'}"
        return fill(random.choice(_frames()["noun"]), {"p": noun})

    def _phrase(self, random: Random, position: int) -> str:
        primitive, drawn = self.steps[position]
        first, frames = position == 0, _frames()
        said = random.choice(primitive.say)
        if primitive.kind in ("filter", "dict_filter"):
            frame = random.choice(frames[primitive.kind]["first" if first else "later"])
            said = fill(frame, {"p": said})
        elif primitive.kind == "map":
            element = frames["element"]
            placed = element["first"] if first else random.choice(element["later"])
            said = fill(said, {"o": fill(placed, {"n": random.choice(element[primitive.input])})})
        elif primitive.kind == "dict":
            said = fill(said, {"of": "[of|in] {a}" if first else ""})
        else:
            where = "list_later" if primitive.kind == "list" else "it_later"
            subject = "{a}" if first else random.choice(frames[where])
            said = fill(said, {"l": subject, "t": subject})
        return fill(choose(random, said), drawn)

    def _connect(self, random: Random, phrases: list[str]) -> str:
        tail = ""
        if self.steps[-1][0].kind != "reduce":
            tail = random.choice(_frames()["return_tail"])
        if len(phrases) == 1:
            return phrases[0] + tail
        words = _document()["connectives"]
        middle = random.choice(words["middle"])
        last = random.choice(words["middle"][:2] if tail else words["last"])
        return f"{middle.join(phrases[:-1])}{last}{phrases[-1]}{tail}"


def is_held_out(first: Primitive, second: Primitive) -> bool:
    """Whether training never shows `second` right after `first`."""
    digest = hashlib.md5(f"{first.name}>{second.name}".encode(), usedforsecurity=False)
    return int(digest.hexdigest(), 16) % 100 < _HELD_OUT_PERCENT


def draw_pipeline(random: Random, split: Split) -> Pipeline:
    """One to four primitives that fit together, held-out neighbours only in their own split."""
    while True:
        source = random.choices(list(_INPUT_WEIGHTS), list(_INPUT_WEIGHTS.values()))[0]
        chain = _draw_chain(random, source)
        if not chain or chain[-1].kind == "source":
            continue
        held = any(is_held_out(*pair) for pair in pairwise(chain))
        if held == (split is Split.COMPOSITION):
            steps = [(primitive, primitive.draw_constants(random)) for primitive in chain]
            return Pipeline(source=source, steps=steps)


def _draw_chain(random: Random, source: str) -> list[Primitive] | None:
    length = random.choices([1, 2, 3, 4], [14, 42, 36, 8])[0]
    chain: list[Primitive] = []
    current = source
    while len(chain) < length and current != "end":
        names = {primitive.name for primitive in chain}
        fitting = [p for p in _primitives_by_input()[current] if p.name not in names]
        reducing = [p for p in fitting if p.kind == "reduce" and chain]
        others = [p for p in fitting if p.kind != "reduce"]
        last = len(chain) == length - 1
        if last and length > 1 and reducing and random.random() < 0.6:
            pool = reducing
        else:
            pool = reducing + others if last else others
        chain.append(random.choice(pool))
        current = chain[-1].output
    return chain if len(chain) == length else None


def _constant(random: Random, spec: Any) -> Any:
    if isinstance(spec, str):
        return random.choice(_document()["choices"][spec])
    low, high = spec
    if high < 30 or random.random() < 0.7:
        return random.randint(low, high)
    return random.choice([*_ROUND_CONSTANTS, random.randint(30, 200)])


@cache
def _document() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(_SOURCE.read_text(encoding="utf-8"))
    return document


def _frames() -> dict[str, Any]:
    frames: dict[str, Any] = _document()["frames"]
    return frames


@cache
def _primitives_by_input() -> dict[str, list[Primitive]]:
    found: dict[str, list[Primitive]] = {}
    for group in _document()["groups"]:
        inputs = group["input"] if isinstance(group["input"], list) else [group["input"]]
        for input_kind in inputs:
            for name, entry in group["primitives"].items():
                found.setdefault(input_kind, []).append(_primitive(group, input_kind, name, entry))
    return found


def _primitive(
    group: dict[str, Any], input_kind: str, name: str, entry: dict[str, Any]
) -> Primitive:
    if group.get("noun"):
        nouns = tuple(entry["say"])
    else:
        nouns = (entry["noun"],) if "noun" in entry else ()
    label = name[1:] if input_kind == "dict" else name
    return Primitive(
        name=name,
        label=entry.get("name", label),
        input=input_kind,
        output=input_kind if group["output"] == "same" else group["output"],
        kind=group["kind"],
        code=fill(group["code"], {"e": entry["e"]}),
        say=tuple(entry["say"]),
        nouns=nouns,
        constants={key: entry[key] for key in ("K", "C", "D", "S", "W") if key in entry},
    )
