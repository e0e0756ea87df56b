"""Measure the model as the product uses it: real prompts, real llama-server, code really run.

Every figure is one greedy answer per task. *Strict* means that the plan is valid, that it names
the one right path, and that the code written from that very plan passes hidden asserts.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from random import Random

from pydantic import ValidationError

from agent.team.state import Plan, ReviewAnswer, plan_answer
from tools.tiny_coder import judge
from tools.tiny_coder.compose import WrongAttempt
from tools.tiny_coder.mix import MIXES
from tools.tiny_coder.prompts_mix import shipped_book
from tools.tiny_coder.samples import unified_diff
from tools.tiny_coder.scene import Change, Scene, draw_scene
from tools.tiny_coder.server import Server, running_server
from tools.tiny_coder.team_run import run_team
from tools.tiny_coder.words import Split

SPLITS = (Split.FAMILY, Split.COMPOSITION, Split.PARAPHRASE)
_SHARE_OF_EXISTING_FILES = 0.4


@dataclass(frozen=True)
class EvaluationTask:
    """One task of a split, always the same for the same number."""

    split: Split
    number: int
    scene: Scene

    @property
    def change(self) -> Change:
        """The one change that it asks for."""
        return self.scene.changes[0]


@dataclass(kw_only=True)
class Outcome:
    """What the model made of one task; None where the question did not arise."""

    split: str
    number: int
    identity: str
    text: str
    plan_valid: bool = False
    plan_path: bool = False
    plan_copied: bool = False
    """The instruction is the one of the training data, word for word."""
    code: bool = False
    """The code is right, given the right step."""
    strict: bool = False
    repaired: bool | None = None
    """The second answer is right, after a first one that failed its visible tests."""
    right_accepted: bool = False
    wrong_refused: bool = False
    """Both without a test result, which would give the answer away."""
    any_of_four: bool | None = None
    team: bool | None = None
    answers: dict[str, str] | None = None


def draw_tasks(split: Split, count: int, first: int = 0) -> list[EvaluationTask]:
    """`count` tasks of a split from number `first`; two in five are about an existing file."""
    return [_draw_task(split, number) for number in range(first, first + count)]


def _draw_task(split: Split, number: int) -> EvaluationTask:
    random = Random(f"evaluation {split.value} {number}")
    existing = random.random() < _SHARE_OF_EXISTING_FILES
    return EvaluationTask(
        split, number, draw_scene(random, split, MIXES["shipped"], existing=existing)
    )


def run_task(server: Server, task: EvaluationTask, *, four: bool) -> Outcome:
    """Plan, code, repair and review one task."""
    change = task.change
    outcome = Outcome(
        split=task.split.value,
        number=task.number,
        identity=change.function.identity,
        text=task.scene.task.text,
        answers={},
    )
    plan = _plan(server, task, outcome)
    first = _code(server, task, change.instruction, outcome, "code")
    outcome.code = is_right(first, change)
    if plan and outcome.plan_path:
        instruction = plan.steps[0].instruction
        outcome.plan_copied = instruction == change.instruction
        own = first if outcome.plan_copied else _code(server, task, instruction, outcome, "own")
        outcome.strict = is_right(own, change)
    if not _passes_visible(first, change):
        outcome.repaired = _repair(server, task, first, outcome)
    if four:
        outcome.any_of_four = any(
            is_right(_code(server, task, change.instruction, outcome, f"warm{seed}", seed), change)
            for seed in range(1, 5)
        )
    outcome.right_accepted = _review(server, task, change.after) == "accept"
    wrong: WrongAttempt = change.function.wrong[0]
    wrong_file = change.after.replace(change.function.code, wrong.code)
    outcome.wrong_refused = _review(server, task, wrong_file) == "revise"
    return outcome


def _plan(server: Server, task: EvaluationTask, outcome: Outcome) -> Plan | None:
    scene = task.scene
    allowed = [] if scene.files == "any" else scene.files.split(", ")
    form = plan_answer(allowed)
    prompt = scene.prompt(shipped_book(), "planner", correction="")
    text = server.answer(prompt.messages, schema=form.model_json_schema())
    assert outcome.answers is not None
    outcome.answers["plan"] = text
    try:
        plan = form.model_validate_json(text)
    except ValidationError:
        return None
    outcome.plan_valid = True
    outcome.plan_path = [step.path for step in plan.steps] == [task.change.path]
    return plan


def _code(
    server: Server,
    task: EvaluationTask,
    instruction: str,
    outcome: Outcome,
    key: str,
    warm_seed: int = 0,
) -> str | None:
    prompt = task.scene.coder_prompt(shipped_book(), task.change, instruction)
    temperature = 0.6 if warm_seed else 0.0
    text = server.answer(prompt.messages, temperature=temperature, seed=warm_seed or 1)
    assert outcome.answers is not None
    outcome.answers[key] = text
    return judge.parsed(text, task.change.path, task.change.before)


def _repair(server: Server, task: EvaluationTask, first: str | None, outcome: Outcome) -> bool:
    change = task.change
    content = (first or change.before).rstrip("\n")
    evidence = judge.pytest_evidence(content, change.function, change.path)
    prompt = task.scene.repair_prompt(shipped_book(), change, change.instruction, content, evidence)
    text = server.answer(prompt.messages)
    assert outcome.answers is not None
    outcome.answers |= {"evidence": evidence, "repair": text}
    return is_right(judge.parsed(text, change.path, content), change)


def _review(server: Server, task: EvaluationTask, after: str) -> str:
    diff = unified_diff(task.change.path, task.change.before, after)
    prompt = task.scene.prompt(shipped_book(), "reviewer", diff=diff, tests="No tests were found.")
    text = server.answer(prompt.messages, schema=ReviewAnswer.model_json_schema())
    try:
        return ReviewAnswer.model_validate_json(text).verdict
    except ValidationError:
        return "unreadable"


def is_right(content: str | None, change: Change) -> bool:
    """Whether a changed file keeps what was there and passes the hidden asserts."""
    if content is None or not judge.keeps(content, change.before):
        return False
    return judge.passes(content, change.function.name, change.function.cases)


def _passes_visible(content: str | None, change: Change) -> bool:
    visible = change.function.cases[: change.function.visible]
    return content is not None and judge.passes(content, change.function.name, visible)


def evaluate(server: Server, count: int, four: int, first: int = 0) -> list[Outcome]:
    """All splits; four warm answers for `four` tasks of each."""
    tasks = [task for split in SPLITS for task in draw_tasks(split, count, first)]
    limit = first + four
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(lambda task: run_task(server, task, four=task.number < limit), tasks))


def table(outcomes: Sequence[Outcome]) -> str:
    """The figures per split, as Markdown."""
    rows = [
        ("tasks", lambda chosen: str(len(chosen))),
        ("planner: JSON valid", partial(_percent, field="plan_valid")),
        ("planner: right path", partial(_percent, field="plan_path")),
        ("planner: instruction copied word for word", partial(_percent, field="plan_copied")),
        ("coder: passes, given the right step", partial(_percent, field="code")),
        ("**strict: plan, path and code**", partial(_percent, field="strict")),
        ("strict, templates only", _of(pipelines=False)),
        ("strict, pipelines only", _of(pipelines=True)),
        ("coder: one of four warm answers passes", partial(_percent, field="any_of_four")),
        ("coder: repairs its own red answer", partial(_percent, field="repaired")),
        ("reviewer: right diff accepted, no tests", partial(_percent, field="right_accepted")),
        ("reviewer: wrong diff refused, no tests", partial(_percent, field="wrong_refused")),
        ("whole team: accepted and passes hidden asserts", partial(_percent, field="team")),
    ]
    lines = [f"| | {' | '.join(split.value for split in SPLITS)} |", "|---|---|---|---|"]
    for label, figure in rows:
        cells = [figure([o for o in outcomes if o.split == split.value]) for split in SPLITS]
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _of(*, pipelines: bool):  # type: ignore[no-untyped-def]
    def figure(chosen: list[Outcome]) -> str:
        return _percent(
            [o for o in chosen if o.identity.startswith("pipe:") == pipelines], field="strict"
        )

    return figure


def _percent(chosen: Sequence[Outcome], *, field: str) -> str:
    values = [getattr(outcome, field) for outcome in chosen]
    asked = [value for value in values if value is not None]
    if not asked:
        return "-"
    return f"{100 * sum(asked) / len(asked):.0f}% ({sum(asked)}/{len(asked)})"


def add_team(
    outcomes: list[Outcome], binary: Path, model: Path, count: int, first: int = 0
) -> None:
    """Let the whole team do `count` tasks of each split."""
    by_key = {(outcome.split, outcome.number): outcome for outcome in outcomes}
    for split in SPLITS:
        for task in draw_tasks(split, count, first):
            result = run_team(task.scene, binary, model)
            right = result.accepted and is_right(result.content, task.change)
            by_key[split.value, task.number].team = right


def main() -> None:
    """``python -m tools.tiny_coder.evaluate MODEL --binary SERVER``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--binary", type=Path, required=True, help="llama-server")
    parser.add_argument("--tasks", type=int, default=60, help="per split")
    parser.add_argument("--first", type=int, default=0, help="number of the first task")
    parser.add_argument("--four", type=int, default=0, help="tasks with four warm answers")
    parser.add_argument("--team", type=int, default=0, help="tasks for the whole team")
    parser.add_argument("--details", type=Path, help="where to write every answer, as JSON")
    parser.add_argument("--log", type=Path, default=Path("/tmp/tiny_coder_server.log"))
    chosen = parser.parse_args()
    with running_server(chosen.binary, chosen.model, chosen.log) as server:
        outcomes = evaluate(server, chosen.tasks, chosen.four, chosen.first)
    add_team(outcomes, chosen.binary, chosen.model, chosen.team, chosen.first)
    if chosen.details:
        details = [asdict(outcome) for outcome in outcomes]
        chosen.details.write_text(json.dumps(details, indent=1), encoding="utf-8")
    print(table(outcomes))


if __name__ == "__main__":
    main()
