"""Training samples: the exact request of a role and the answer that it should give."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random

from agent.core.prompts import Prompt
from agent.team.repo_context import render_step
from tools.tiny_coder import evidence, mutate
from tools.tiny_coder.compose import Function, WrongAttempt, draw_function
from tools.tiny_coder.mix import Mix
from tools.tiny_coder.nonsense import scramble
from tools.tiny_coder.prompts_mix import draw_book, shipped_book
from tools.tiny_coder.scene import Change, Scene, draw_scene, join_functions
from tools.tiny_coder.tasks import describe_task
from tools.tiny_coder.words import Split, module_path, training_word

ROLE_WEIGHTS = {"new": 32, "append": 16, "fix": 6, "repair": 8, "planner": 27, "reviewer": 14}
_BARE_SYSTEM = "You write Python."
_REFUSALS = [
    f"Your last plan was refused: {reason}\nAnswer with a corrected plan."
    for reason in (
        "step 1: depends_on may only name earlier steps",
        "step 1: the path is not one of the files that may change",
        "the answer is not valid JSON",
        "steps must not be empty",
    )
]


@dataclass(frozen=True)
class Sample:
    """One request with its answer."""

    role: str
    prompt: Prompt
    answer: str
    also_learned: str = ""
    """A part of the request that is worth predicting too: the added lines of a right diff."""


def draw_sample(random: Random, split: Split, mix: Mix, role: str | None = None) -> Sample:
    """A random sample of that role, or of a random one."""
    if random.random() < mix.bare:
        return _bare(random, split, mix)
    chosen = role or random.choices(list(ROLE_WEIGHTS), list(ROLE_WEIGHTS.values()))[0]
    return _BUILDERS[chosen](random, split, mix)


def plan_answer(scene: Scene) -> str:
    """The plan as the planner writes it."""
    return json.dumps(scene.plan())


def code_answer(content: str) -> str:
    """A file as the coder writes it."""
    return f"```python\n{content}\n```"


def unified_diff(path: str, before: str, after: str) -> str:
    """The change of one file as ``git diff`` prints it, without index lines, in a fence."""
    lines = difflib.unified_diff(
        before.splitlines(),
        after.splitlines(),
        f"a/{path}" if before else "/dev/null",
        f"b/{path}",
        lineterm="",
    )
    header = [f"diff --git a/{path} b/{path}"] + ([] if before else ["new file mode 100644"])
    return "\n".join(["```diff", *header, *lines, "```"])


def _bare(random: Random, split: Split, mix: Mix) -> Sample:
    """A step for the coder, or a task for the planner, and hardly a word around it."""
    function = draw_function(
        random, split, tested=False, synonyms=mix.synonyms, pipelines=mix.pipelines
    )
    path = module_path(random, split)
    if random.random() < mix.bare_plans:
        if random.random() < mix.nonsense:
            function = replace(function, description=scramble(random, function))
        return _bare_plan(random, split, Change(function, path, "", function.code))
    change = Change(function, path, "", function.code)
    step = render_step(path, change.action, change.instruction, {})
    form = shipped_book().fill("answer_whole_file", path=path)
    request = f"## Step\n{step}\n\n## Answer\n{form}"
    prompt = Prompt(system=_BARE_SYSTEM, shared="", role="", volatile=request)
    return Sample("bare", prompt, code_answer(change.after))


def _bare_plan(random: Random, split: Split, change: Change) -> Sample:
    given = random.random() < 0.5
    task = describe_task(random, split, change.function, change.path, may_omit_path=given)
    files = change.path if given else "any"
    scene = Scene(changes=[change], task=task, files=files, listing=[], shown={})
    request = f"# Task\n{task.text}\n\nMay change: {files}\n\n# Role: planner"
    prompt = Prompt(system=_BARE_SYSTEM, shared="", role="", volatile=request)
    return Sample("bare", prompt, plan_answer(scene))


def _planner(random: Random, split: Split, mix: Mix) -> Sample:
    train = split is Split.TRAIN
    two = train and random.random() < 0.12
    fix = train and not two and random.random() < 0.1
    existing = random.random() < (0.6 if fix else 0.35)
    nonsense = random.random() < mix.nonsense
    scene = draw_scene(random, split, mix, existing=existing, fix=fix, two=two, nonsense=nonsense)
    correction = random.choice(_REFUSALS) if train and random.random() < 0.03 else ""
    prompt = scene.prompt(draw_book(random, mix.exact), "planner", correction=correction)
    return Sample("planner", prompt, plan_answer(scene))


def _coder(
    random: Random, split: Split, mix: Mix, *, existing: bool, fix: bool, role: str
) -> Sample:
    two = split is Split.TRAIN and not fix and random.random() < 0.1
    scene = draw_scene(random, split, mix, existing=existing, fix=fix, two=two)
    change = random.choice(scene.changes)
    prompt = scene.coder_prompt(draw_book(random, mix.exact), change, change.instruction)
    return Sample(role, prompt, code_answer(change.after))


def _new(random: Random, split: Split, mix: Mix) -> Sample:
    return _coder(random, split, mix, existing=False, fix=False, role="new")


def _append(random: Random, split: Split, mix: Mix) -> Sample:
    return _coder(random, split, mix, existing=True, fix=False, role="append")


def _fix(random: Random, split: Split, mix: Mix) -> Sample:
    return _coder(random, split, mix, existing=random.random() < 0.5, fix=True, role="fix")


def _repair(random: Random, split: Split, mix: Mix) -> Sample:
    scene = draw_scene(random, split, mix, existing=random.random() < 0.3)
    change = scene.changes[0]
    wrong, seen = _wrong_result(random, change)
    book = draw_book(random, mix.exact)
    prompt = scene.repair_prompt(book, change, change.instruction, wrong, seen)
    return Sample("repair", prompt, code_answer(change.after))


def _wrong_result(random: Random, change: Change) -> tuple[str, str]:
    """A wrong file and the evidence against it."""
    function, path = change.function, change.path
    draw = random.random()
    if draw < 0.12:
        broken = _with(change, mutate.broken_syntax(random, function.code))
        output = evidence.syntax_error(random, path, broken)
        if output:
            return broken, f"Tests: exit code 2\n{output}"
    elif draw < 0.24:
        other = f"{training_word(random)}_{function.name}"
        renamed = function.code.replace(f"def {function.name}(", f"def {other}(")
        if change.before and random.random() < 0.3:
            renamed = ""
        wrong = _with(change, renamed) if renamed else change.before
        error = f"ImportError: cannot import name '{function.name}'"
        error += f" from '{evidence.module_of(path)}'"
        return wrong, f"Tests: exit code 2\n{evidence.failed_import(random, path, error)}"
    attempt = random.choice(function.wrong)
    wrong = _with(change, attempt.code)
    if random.random() < 0.15:
        comment = _comment(function, attempt, wrong, path)
        return wrong, f"{path}:{comment['line']} error: {comment['text']}"
    return wrong, f"Tests: exit code 1\n{evidence.failed(random, function, path, attempt)}"


def _reviewer(random: Random, split: Split, mix: Mix) -> Sample:
    fix = random.random() < 0.1
    scene = draw_scene(random, split, mix, existing=random.random() < 0.35, fix=fix)
    change = scene.changes[0]
    function, path = change.function, change.path
    right = random.random() < 0.58
    attempt = random.choice(function.wrong)
    after = change.after if right else change.after.replace(function.code, attempt.code)
    if after == change.before:
        right, after = True, change.after
    tests = _tests_for_review(random, change, attempt, right)
    book = draw_book(random, mix.exact)
    prompt = scene.prompt(
        book, "reviewer", diff=unified_diff(path, change.before, after), tests=tests
    )
    comments = [] if right else [_comment(function, attempt, after, path)]
    verdict = {"verdict": "accept" if right else "revise", "comments": comments}
    return Sample("reviewer", prompt, json.dumps(verdict), function.code if right else "")


def _tests_for_review(random: Random, change: Change, attempt: WrongAttempt, right: bool) -> str:
    draw = random.random()
    if draw < 0.15:
        return "No tests were found."
    if right or draw < 0.3:
        return evidence.passed(random, random.choice([1, 1, 2, 3, 4, 7]))
    return f"exit code 1\n{evidence.failed(random, change.function, change.path, attempt)}"


def _comment(
    function: Function, attempt: WrongAttempt, content: str, path: str
) -> dict[str, str | int]:
    """The first line that differs from the right code, and what should stand there."""
    right, wrong = function.code.split("\n"), attempt.code.split("\n")
    different = [n for n in range(min(len(right), len(wrong))) if right[n] != wrong[n]]
    place = different[0] if different else min(len(right), len(wrong)) - 1
    if len(right) == len(wrong):
        text = f"`{wrong[place].strip()}` is wrong, it should be `{right[place].strip()}`."
    else:
        text = f"The line `{right[place].strip()}` is missing."
    before = content[: content.index(attempt.code)].count("\n") if attempt.code in content else 0
    return {"file": path, "line": before + place + 1, "severity": "error", "text": text}


def _with(change: Change, code: str) -> str:
    """The changed file with other code in place of the right function."""
    parts = [change.before, code] if change.before else [code]
    return join_functions(parts)


_BUILDERS: dict[str, Callable[[Random, Split, Mix], Sample]] = {
    "new": _new,
    "append": _append,
    "fix": _fix,
    "repair": _repair,
    "planner": _planner,
    "reviewer": _reviewer,
}
