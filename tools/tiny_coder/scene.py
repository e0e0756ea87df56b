"""A task in its repository: what all roles of one run are shown."""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random
from typing import Any

from agent.core.prompts import Prompt, PromptBook
from agent.team.repo_context import render_repository, render_step
from tools.tiny_coder.compose import Function, draw_function
from tools.tiny_coder.evidence import test_file, test_path
from tools.tiny_coder.mix import Mix
from tools.tiny_coder.nonsense import scramble
from tools.tiny_coder.tasks import TaskText, describe_task, describe_two
from tools.tiny_coder.words import Split, module_path

_ALWAYS_THERE = ["README.md", "pyproject.toml", "LICENSE", "Makefile", ".gitignore", "setup.cfg"]


@dataclass(frozen=True)
class Change:
    """One function to be written into one file, beside what stands there."""

    function: Function
    path: str
    before: str
    """The file as it is; empty when it does not exist."""
    after: str
    """The file as it should be."""
    fix: bool = False

    @property
    def action(self) -> str:
        """``create`` or ``edit``, as a plan says it."""
        return "edit" if self.before else "create"

    @property
    def instruction(self) -> str:
        """What the planner tells the coder."""
        signature, description = self.function.signature, self.function.description
        if self.fix:
            return f"Fix def {signature}: it should {description}"
        return f"Add def {signature}: {description}"

    @property
    def summary(self) -> str:
        """The change in a few words."""
        return f"{'Fix' if self.fix else 'Add'} {self.function.name} in {self.path}"


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A repository, a task and the one or two changes that it asks for."""

    changes: list[Change]
    task: TaskText
    files: str
    listing: list[str]
    shown: dict[str, str | None]

    def prompt(self, book: PromptBook, role: str, **volatile: str) -> Prompt:
        """The prompt of one role."""
        return book.prompt(
            role,
            repository=render_repository(self.listing, self.shown),
            task=self.task.text,
            files=self.files,
            **volatile,
        )

    def coder_prompt(self, book: PromptBook, change: Change, instruction: str) -> Prompt:
        """The coder's prompt for one change; files shown above are not shown again."""
        current = change.before or None
        repeated: dict[str, str | None] = {}
        if change.path not in self.shown or self.shown[change.path] != current:
            repeated = {change.path: current}
        step = render_step(change.path, change.action, instruction, repeated)
        form = book.fill("answer_whole_file", path=change.path)
        return self.prompt(book, "coder", step=step, answer_format=form)

    def repair_prompt(
        self, book: PromptBook, change: Change, instruction: str, wrong: str, evidence: str
    ) -> Prompt:
        """The prompt after a failure; the step shows the file as the coder left it."""
        step = render_step(change.path, change.action, instruction, {change.path: wrong})
        form = book.fill("answer_whole_file", path=change.path)
        return self.prompt(book, "repair", step=step, evidence=evidence, answer_format=form)

    def plan(self) -> dict[str, Any]:
        """The right plan."""
        steps: list[dict[str, Any]] = []
        for number, change in enumerate(self.changes):
            same_file = number > 0 and change.path == self.changes[0].path
            steps.append(
                {
                    "path": change.path,
                    "action": change.action,
                    "instruction": change.instruction,
                    "depends_on": [1] if same_file else [],
                }
            )
        summary = " and ".join(
            change.summary if number == 0 else change.summary.removeprefix("Add ")
            for number, change in enumerate(self.changes)
        )
        return {"summary": summary, "steps": steps, "read": []}


def join_functions(codes: list[str]) -> str:
    """The content of a module made of these functions."""
    return "\n\n\n".join(codes)


def draw_scene(
    random: Random,
    split: Split,
    mix: Mix,
    *,
    existing: bool,
    fix: bool = False,
    two: bool = False,
    nonsense: bool = False,
) -> Scene:
    """A random task; `existing` puts it into a file that already holds other functions.

    `nonsense` gives it a description that no longer fits the code: for planners only.
    """
    change = _draw_change(random, split, mix, existing=existing, fix=fix)
    if nonsense:
        described = replace(change.function, description=scramble(random, change.function))
        change = replace(change, function=described)
    changes = [change]
    if two:
        changes.append(_draw_second(random, change))
    path_given = random.random() < (0.5 if split is not Split.TRAIN else 0.6)
    if two:
        task = describe_two(
            random, change.function, change.path, changes[1].function, changes[1].path
        )
    else:
        task = describe_task(
            random, split, change.function, change.path, fix=fix, may_omit_path=path_given
        )
    paths = list(dict.fromkeys(item.path for item in changes))
    if path_given and random.random() < 0.06:
        paths = sorted([*paths, module_path(random, Split.TRAIN)])
    return Scene(
        changes=changes,
        task=task,
        files=", ".join(paths) if path_given else "any",
        listing=_draw_listing(random, changes),
        shown=_draw_shown(random, changes, path_given, mix),
    )


def _draw_change(random: Random, split: Split, mix: Mix, *, existing: bool, fix: bool) -> Change:
    function = draw_function(random, split, synonyms=mix.synonyms, pipelines=mix.pipelines)
    others = []
    if existing:
        count = random.choice([1, 1, 1, 2])
        drawn = [draw_function(random, Split.TRAIN, tested=False) for _ in range(count)]
        others = [other.code for other in drawn if other.name != function.name]
    path = module_path(random, split)
    if not fix:
        after = join_functions([*others, function.code])
        return Change(function, path, join_functions(others), after)
    place = random.randint(0, len(others))
    wrong = random.choice(function.wrong).code
    before = join_functions([*others[:place], wrong, *others[place:]])
    after = join_functions([*others[:place], function.code, *others[place:]])
    return Change(function, path, before, after, fix=True)


def _draw_second(random: Random, first: Change) -> Change:
    while True:
        function = draw_function(random, Split.TRAIN)
        if function.name != first.function.name and function.name not in first.function.code:
            break
    if random.random() < 0.5:
        before = first.after
        return Change(function, first.path, before, join_functions([before, function.code]))
    return Change(function, module_path(random, Split.TRAIN), "", function.code)


def _draw_listing(random: Random, changes: list[Change]) -> list[str]:
    listing = set(random.sample(_ALWAYS_THERE, random.choice([0, 0, 1, 2, 3])))
    first = changes[0]
    if first.before:
        listing.add(first.path)
    if "/" in first.path and random.random() < 0.5:
        folder = first.path.rsplit("/", 1)[0]
        listing.add(f"{folder}/__init__.py")
        if random.random() < 0.4:
            listing.add(f"{folder}/{module_path(random, Split.TRAIN).rsplit('/', 1)[-1]}")
    if random.random() < 0.5:
        listing.add(test_path(first.path))
    if random.random() < 0.15:
        listing.add(test_path(module_path(random, Split.TRAIN)))
    return sorted(listing)


def _draw_shown(
    random: Random, changes: list[Change], path_given: bool, mix: Mix
) -> dict[str, str | None]:
    first = changes[0]
    shown: dict[str, str | None] = {}
    if path_given or (first.before and random.random() < 0.7):
        for change in changes:
            untouched = change.path == first.path
            shown.setdefault(change.path, (first.before if untouched else change.before) or None)
    if random.random() < mix.tests_shown:
        shown[test_path(first.path)] = test_file(first.function, first.path)
    if random.random() < 0.06:
        shown[_package_file(first.path)] = random.choice(["", '"""Helpers."""', "__all__ = []"])
    return dict(sorted(shown.items())) if random.random() < 0.3 else shown


def _package_file(path: str) -> str:
    folder, slash, _ = path.rpartition("/")
    return f"{folder}{slash}__init__.py"
