"""The prompts of one workflow, in order, as the product would send them.

One plan; four candidates of one coder prompt and four repairs of one failing output, each four at
once; four reviews of different diffs, in turn. The words come from the product's own prompt files
and renderers; repository, task, failing output and diffs are made up here, and never come from a
model, so that every run of the benchmark sends the same tokens.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from itertools import product

from agent.core.prompt_encoder import PromptEncoder
from agent.core.prompts import Prompt, PromptBook
from agent.core.sampling import CODING, Sampling
from agent.core.token_prefix import common_prefix
from agent.team.repo_context import fenced, render_repository, render_step

_SHARED_TOKENS = 1800
"""Of system prompt, repository and task, at the least; rounded up to a whole function."""
_PATH = "ledger/report.py"
_VERBS = ("list", "total", "rank", "group", "limit", "round", "average", "export")
_NOUNS = (
    *("price", "weight", "discount", "balance", "deposit", "refund"),
    *("margin", "postage", "interest", "penalty", "turnover", "surcharge"),
)
_NAMES = tuple(product(_VERBS, _NOUNS))
_FUNCTION = '''

def {verb}_{noun}(rows, limit={limit}):
    """{title} the {noun} of every row where it is above the limit."""
    found = []
    for row in rows:
        value = row.get("{noun}", 0)
        if value > limit:
            found.append((row["name"], value))
    return sorted(found, key=lambda pair: pair[{column}])
'''
_LISTING = (
    "README.md",
    "ledger/__init__.py",
    "ledger/accounts.py",
    "ledger/invoices.py",
    "ledger/report.py",
    "pyproject.toml",
    "tests/test_invoices.py",
    "tests/test_report.py",
)
_TESTS = """from ledger.report import overdue

ROWS = [{"name": "a", "days": 40}, {"name": "b", "days": 3}, {"name": "c"}]


def test_names_only_the_late_ones():
    assert overdue(ROWS, days=30) == ["a"]


def test_longest_first():
    assert overdue(ROWS, days=0) == ["a", "b"]
"""
_TASK = """Name the overdue customers

Add a function `overdue(rows, days)` to `ledger/report.py`. It returns the names of the rows whose \
`days` are more than `days`, the longest overdue first. A row without `days` is not overdue. Keep \
the style of the file; the tests in `tests/test_report.py` must pass."""
_INSTRUCTION = (
    "Add the function overdue(rows, days) at the end of the file. Return the names of the rows "
    'whose "days" are more than days, the longest overdue first; skip rows without "days".'
)
_EVIDENCE = """Tests: exit code 1
___________________________ test_longest_first ___________________________

    def test_longest_first():
>       assert overdue(ROWS, days=0) == ["a", "b"]

tests/test_report.py:11:
_ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _

rows = [{'name': 'a', 'days': 40}, {'name': 'b', 'days': 3}, {'name': 'c'}]
days = 0

    def overdue(rows, days):
        late = [row for row in rows if row["days"] > days]
>       ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
E       KeyError: 'days'

ledger/report.py:214: KeyError
==================== short test summary info ====================
FAILED tests/test_report.py::test_names_only_the_late_ones - KeyError: 'days'
FAILED tests/test_report.py::test_longest_first - KeyError: 'days'
2 failed, 9 passed"""
_VERSIONS = (
    """
    late = [row for row in rows if row.get("days", 0) > days]
    late.sort(key=lambda row: row["days"], reverse=True)
    return [row["name"] for row in late]
""",
    """
    def waited(row):
        return row.get("days", 0)

    return [row["name"] for row in sorted(rows, key=waited, reverse=True) if waited(row) > days]
""",
    """
    found = []
    for row in rows:
        value = row.get("days", 0)
        if value > days:
            found.append((value, row["name"]))
    found.sort(reverse=True)
    return [name for value, name in found]
""",
    """
    names = {}
    for row in rows:
        if "days" in row and row["days"] > days:
            names[row["name"]] = row["days"]
    return sorted(names, key=names.get, reverse=True)
""",
)
"""What four candidates made of the task."""


@dataclass(frozen=True, kw_only=True)
class Call:
    """One request of the workflow."""

    prompt: Prompt
    ids: list[int]
    sampling: Sampling
    alike: int


@dataclass(frozen=True, kw_only=True)
class Stage:
    """The requests of one phase."""

    name: str
    calls: tuple[Call, ...]
    at_once: bool
    """False where the workflow sends them one after the other: reviews, of which the first
    accepting one ends the round."""
    ideal: int
    """Prompt tokens that cannot be spared, after the phases before."""


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """Everything that is sent."""

    stages: tuple[Stage, ...]
    shared: int
    """Tokens that all prompts begin with."""
    answer: int
    """Tokens per answer."""
    exact: bool
    """The model never ends an answer of its own accord."""

    @property
    def ideal(self) -> int:
        """Prompt tokens that cannot be spared when nothing was saved before: the nodes of the trie
        of all prompts, and one per request whose whole prompt was known."""
        return sum(stage.ideal for stage in self.stages)


async def encode(encoder: PromptEncoder) -> tuple[tuple[Stage, ...], int]:
    """The workflow as token ids, on a repository that makes the shared part long enough; and the
    tokens of that part. Raises BackendError."""
    for functions in range(1, len(_NAMES) + 1):
        phases = workflow(functions)
        shared = (await encoder.encode(phases["plan"][0])).shared
        if shared >= _SHARED_TOKENS:
            break
    stages: list[Stage] = []
    known: list[list[int]] = []
    for name, prompts in phases.items():
        # All of a phase are equal or none is.
        alike = len(prompts) // len(set(prompts))
        calls, ideal = [], 0
        for prompt in prompts:
            ids = (await encoder.encode(prompt)).ids
            ideal += max(1, len(ids) - max((common_prefix(ids, x) for x in known), default=0))
            known.append(ids)
            sampling = CODING.with_seed(len(known))
            calls.append(Call(prompt=prompt, ids=ids, sampling=sampling, alike=alike))
        at_once = name != "reviews"
        stages.append(Stage(name=name, calls=tuple(calls), at_once=at_once, ideal=ideal))
    return tuple(stages), shared


def most_functions() -> int:
    """Functions that the made-up repository can have."""
    return len(_NAMES)


def workflow(functions: int) -> dict[str, tuple[Prompt, ...]]:
    """By phase, on a repository whose file has so many functions."""
    book = PromptBook.load()
    before = made_up_file(functions)
    repository = render_repository(_LISTING, {_PATH: before, "tests/test_report.py": _TESTS})
    step = render_step(_PATH, "edit", _INSTRUCTION, {})
    answer = book.fill("answer_edits", path=_PATH)

    def prompt(role: str, **volatile: str) -> Prompt:
        return book.prompt(role, repository=repository, task=_TASK, files=_PATH, **volatile)

    tests = "exit code 0\n11 passed"
    diffs = [fenced(_diff(before, version), "diff") for version in _VERSIONS]
    return {
        "plan": (prompt("planner", correction=""),),
        "candidates": (prompt("coder", step=step, answer_format=answer),) * 4,
        "repairs": (prompt("repair", step=step, evidence=_EVIDENCE, answer_format=answer),) * 4,
        "reviews": tuple(prompt("reviewer", diff=diff, tests=tests) for diff in diffs),
    }


def made_up_file(functions: int) -> str:
    """A Python file with so many functions, no two of them alike; 96 at the most."""
    return '"""Reports on the rows of a ledger."""\n' + "".join(
        _FUNCTION.format(verb=verb, noun=noun, title=verb.title(), limit=7 * x, column=x % 2)
        for x, (verb, noun) in enumerate(_NAMES[:functions])
    )


def _diff(before: str, version: str) -> str:
    after = f'{before}\n\ndef overdue(rows, days):\n    """Name the overdue."""{version}'
    number = _VERSIONS.index(version)
    lines = difflib.unified_diff(
        before.splitlines(), after.splitlines(), f"a/{_PATH}", f"b/{_PATH}", lineterm=""
    )
    head = f"diff --git a/{_PATH} b/{_PATH}\nindex 3f2a9c1..{number}d57e08 100644\n"
    return head + "\n".join(lines)
