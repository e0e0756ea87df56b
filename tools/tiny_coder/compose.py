"""One random function: its code, how one asks for it, its tests, and wrong attempts at it."""

from __future__ import annotations

import keyword
import re
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

from tools.tiny_coder import execution, mutate, values
from tools.tiny_coder.phrasing import capitalized, choose, fill, listed
from tools.tiny_coder.pipelines import draw_pipeline
from tools.tiny_coder.synonyms import vary
from tools.tiny_coder.templates import all_templates
from tools.tiny_coder.words import Split, function_name, is_free_name, training_word, word_table

_LONGEST_LITERAL = 70
_TRIES = 40


@dataclass(frozen=True)
class Case:
    """One call and its right answer."""

    arguments: list[Any]
    expected: Any

    def call(self, name: str) -> str:
        """The call as source."""
        return f"{name}({', '.join(map(repr, self.arguments))})"

    def assertion(self, name: str) -> str:
        """The assert statement of a test."""
        singleton = self.expected is None or isinstance(self.expected, bool)
        return f"assert {self.call(name)} {'is' if singleton else '=='} {self.expected!r}"


@dataclass(frozen=True)
class WrongAttempt:
    """Code that fails a visible test, and how."""

    code: str
    case: Case
    got: Any = None
    error: str = ""
    """``Type: message`` of an exception; empty when the answer is merely wrong."""


@dataclass(kw_only=True)
class Function:
    """What a task asks for."""

    identity: str
    name: str
    arguments: list[str]
    code: str
    description: str
    """In the imperative, with the argument names filled in."""
    arguments_named: bool
    """False when the task leaves the argument names to the coder."""
    cases: list[Case] = field(default_factory=list)
    visible: int = 3
    """How many of the cases stand in the repository's tests."""
    wrong: list[WrongAttempt] = field(default_factory=list)

    @property
    def signature(self) -> str:
        """``name(a, b)``."""
        return f"{self.name}({', '.join(self.arguments)})"

    @property
    def is_pipeline(self) -> bool:
        """Whether it is composed of primitives rather than taken from a template."""
        return self.identity.startswith("pipe:")

    def wording(self) -> dict[str, str]:
        """Values for the placeholders of a task sentence."""
        return {
            "name": self.name,
            "signature": self.signature,
            "desc": self.description,
            "Desc": capitalized(self.description),
            "args": listed(self.arguments),
            "plain_args": ", ".join(self.arguments),
            "s": "s" if len(self.arguments) > 1 else "",
        }


@dataclass(frozen=True)
class _Draft:
    identity: str
    roles: dict[str, str]
    code: str
    description: str
    meaningful_names: list[str]
    hints: list[Any]
    constants: dict[str, Any]


def draw_function(
    random: Random,
    split: Split,
    *,
    tested: bool = True,
    synonyms: float = 0.0,
    pipelines: float = 0.5,
) -> Function:
    """A function of that split.

    `tested` adds cases and wrong attempts to it; `synonyms` is the share of descriptions in which
    some words are exchanged, `pipelines` that of composed functions.
    """
    while True:
        draft = _draw_draft(random, split, pipelines)
        if random.random() < synonyms:
            draft = replace(draft, description=vary(random, draft.description))
        function = _named(random, split, draft)
        if function is None:
            continue
        if not tested:
            return function
        many = split is not Split.TRAIN
        function.cases = _draw_cases(random, function, draft, 14 if many else 7)
        if len(function.cases) < 4:
            continue
        function.visible = random.choice([2, 3, 3, 4])
        function.wrong = find_wrong_attempts(random, function, 4 if many else 2)
        if function.wrong:
            return function


def _draw_draft(random: Random, split: Split, pipelines: float) -> _Draft:
    if split is Split.COMPOSITION or random.random() < pipelines:
        pipeline = draw_pipeline(random, split)
        return _Draft(
            identity=pipeline.identity,
            roles={"a": pipeline.argument_kind},
            code=pipeline.code("{a}"),
            description=pipeline.describe(random),
            meaningful_names=pipeline.meaningful_names,
            hints=pipeline.hints,
            constants={},
        )
    templates = [t for t in all_templates() if t.descriptions_for(split)]
    template = random.choice(templates)
    constants = template.draw_constants(random)
    description = choose(random, random.choice(template.descriptions_for(split)))
    return _Draft(
        identity=template.names[0],
        roles=template.arguments,
        code=template.code.replace("{{", "{").replace("}}", "}"),
        description=description.replace("{{", "{").replace("}}", "}"),
        meaningful_names=template.names,
        hints=[value for value in constants.values() if isinstance(value, int)],
        constants=constants,
    )


def _named(random: Random, split: Split, draft: _Draft) -> Function | None:
    arguments_named = random.random() >= 0.08
    used = set(re.findall(r"[A-Za-z_]\w*", re.sub(r"\{\w+\}", "", draft.code)))
    arguments = argument_names(random, split, draft.roles, used, default=not arguments_named)
    name = function_name(random, split, draft.meaningful_names)
    if name in arguments.values() or name in used or keyword.iskeyword(name):
        return None
    body = fill(draft.code, {**arguments, **draft.constants})
    quote = random.choice(["", "", "", "`"])
    shown = {role: f"{quote}{argument}{quote}" for role, argument in arguments.items()}
    if len(arguments) == 1 and arguments_named and random.random() < 0.1:
        shown = {role: _generic(kind) for role, kind in draft.roles.items()}
    description = fill(draft.description, {**shown, **draft.constants})
    indented = "\n".join(f"    {line}" if line else line for line in body.split("\n"))
    return Function(
        identity=draft.identity,
        name=name,
        arguments=list(arguments.values()),
        code=f"def {name}({', '.join(arguments.values())}):\n{indented}",
        description=description[0].lower() + description[1:],
        arguments_named=arguments_named,
    )


def _draw_cases(random: Random, function: Function, draft: _Draft, wanted: int) -> list[Case]:
    right = execution.load(function.code, function.name)
    found: dict[str, Case] = {}
    for _ in range(_TRIES):
        if len(found) == wanted:
            break
        arguments: list[Any] = []
        for kind in draft.roles.values():
            arguments.append(values.draw(random, kind, arguments, draft.hints))
        try:
            case = Case(arguments, execution.call(right, arguments))
        except Exception:  # noqa: BLE001 - inputs that the right function refuses are no cases
            continue
        source, expected = case.call(""), repr(case.expected)
        if max(len(source), len(expected)) <= _LONGEST_LITERAL and "\\" not in expected:
            found.setdefault(source, case)
    return _telling_first(random, list(found.values()))


def _telling_first(random: Random, cases: list[Case]) -> list[Case]:
    """Empty answers last; True and False in turn."""
    cases.sort(key=lambda case: not case.expected and random.random() < 0.8)
    if not any(isinstance(case.expected, bool) for case in cases):
        return cases
    true = [case for case in cases if case.expected is True]
    false = [case for case in cases if case.expected is not True]
    both = min(len(true), len(false))
    paired = [case for pair in zip(true, false, strict=False) for case in pair]
    return paired + true[both:] + false[both:]


def find_wrong_attempts(random: Random, function: Function, wanted: int) -> list[WrongAttempt]:
    """Mutants of the code that fail one of the visible cases."""
    found: list[WrongAttempt] = []
    for code in mutate.wrong_variants(random, function.code):
        failure = first_failure(code, function)
        if failure:
            found.append(failure)
        if len(found) == wanted:
            break
    return found


def first_failure(code: str, function: Function) -> WrongAttempt | None:
    """How the code fails the visible cases; None when it passes, hangs or cannot be read."""
    try:
        wrong = execution.load(code, function.name)
    except Exception:  # noqa: BLE001 - unreadable code has no failing case
        return None
    for case in function.cases[: function.visible]:
        try:
            got = execution.call(wrong, case.arguments)
        except execution.TooSlow:
            return None
        except Exception as error:  # noqa: BLE001 - any exception is a failing test
            return WrongAttempt(code, case, error=f"{type(error).__name__}: {error}")
        if got != case.expected or type(got) is not type(case.expected):
            return WrongAttempt(code, case, got=got)
    return None


_SEEN_NAMES = word_table("arguments")
_UNSEEN_NAMES = word_table("unseen_arguments")
_SEEN_ROLES = word_table("roles")
_UNSEEN_ROLES = word_table("unseen_roles")
_FAMILIES = {
    "str": "str csv lowstr spaced lines query pal",
    "word": "word anag like same runs snake camel binstr name",
    "char": "char",
    "list": "ints ints1 ints2 dups dups1 dups2 sortish sorted same_ints nones",
    "strs": "strs strs1 keys",
    "dict": "dict dict1",
    "matrix": "matrix nested",
}
_FAMILY_OF = {kind: family for family, kinds in _FAMILIES.items() for kind in kinds.split()}
_DEFAULT = {
    "str": "text", "word": "word", "char": "char", "int": "n", "list": "numbers",
    "strs": "words", "dict": "data", "matrix": "matrix",
}  # fmt: skip
_GENERIC = {
    "str": "the text", "word": "the string", "char": "the character", "int": "the number",
    "list": "the list", "strs": "the list", "dict": "the dict", "matrix": "the matrix",
}  # fmt: skip


def _generic(kind: str) -> str:
    return _GENERIC[_FAMILY_OF.get(kind, "int")]


def argument_names(
    random: Random, split: Split, roles: dict[str, str], used: set[str], *, default: bool
) -> dict[str, str]:
    """A name for each role that does not collide; `default` gives the obvious, fixed ones."""
    named: dict[str, str] = {}
    for role, kind in roles.items():
        family = _FAMILY_OF.get(kind, "int")
        by_role = family == "int" and role in _SEEN_ROLES
        seen = _SEEN_ROLES[role] if by_role else _SEEN_NAMES[family]
        unseen = _UNSEEN_ROLES[role] if by_role else _UNSEEN_NAMES[family]
        pool = unseen if split.unseen_words and not default else seen
        if not split.unseen_words and random.random() < 0.35:
            pool = [training_word(random) for _ in range(3)]
        taken = used | set(named.values())
        if default:
            pool = [_DEFAULT[family], *seen]
        free = [name for name in pool if name not in taken and is_free_name(name)]
        fallback = [name for name in (_DEFAULT[family], "other", "value2") if name not in taken]
        named[role] = (free or fallback)[0] if default else random.choice(free or fallback)
    return named
