"""The graph of a run: plan, candidates, choice, next round, and the pure routes between them."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime
from langgraph.types import Checkpointer, Send
from langsmith import tracing_context

from agent.team.candidates import NO_ANSWER, attempt, best_so_far
from agent.team.checkpoints import Graph, checkpoints, take_up
from agent.team.context import TeamContext
from agent.team.planner import make_plan
from agent.team.state import Attempt, Candidate, Review, TeamState
from agent.team.task_file import Task

__all__ = ["build_graph", "checkpoints", "run_graph"]

Team = Runtime[TeamContext]


async def plan(state: TeamState, runtime: Team) -> TeamState:
    """Node: make the plan, or another one when the last led nowhere."""
    earlier = state.get("plans", [])
    first = None if earlier else runtime.context.first_plan
    try:
        made = await (first or make_plan(state["task"], runtime.context, earlier))
    except NO_ANSWER as error:
        return {"failure": _without_another(state, str(error)) if earlier else str(error)}
    runtime.context.journal.emit("plan_ready", number=len(earlier) + 1, **made.model_dump())
    number = state["round"] + 1 if earlier else 0
    return {"plan": made, "plans": [*earlier, made], "round": number, "first_round": number}


async def code(work: Attempt, runtime: Team) -> TeamState:
    """Node, once per candidate: write and test."""
    return {"candidates": [await attempt(work, runtime.context)]}


async def choose(state: TeamState, runtime: Team) -> TeamState:
    """Node: take the verdict on the round's best candidate; else the last verdict stands."""
    best = best_so_far(state["candidates"])
    if best is None or best.status != "green" or best.round != state["round"]:
        return {"review": state.get("review")}
    return {"review": best.review} if best.review else {"failure": best.reason}


async def next_round(state: TeamState, runtime: Team) -> TeamState:
    """Node: count the round up, or give up with the reason when all are used."""
    settings = runtime.context.settings
    rounds = state["round"] + 1
    if rounds - state["first_round"] < settings.turbo_rounds:
        runtime.context.journal.emit("round_started", round=rounds)
        return {"round": rounds}
    if len(state["plans"]) < settings.turbo_plans and not any_green(state["candidates"]):
        runtime.context.journal.emit("notice", text="No candidate passed: trying another plan.")
        return {}
    return {"failure": why_given_up(state["candidates"], state.get("review"), rounds)}


def any_green(candidates: Sequence[Candidate]) -> bool:
    """Whether the tests of any passed: then the plan works, and only the review stands against."""
    return any(candidate.status == "green" for candidate in candidates)


def _without_another(state: TeamState, reason: str) -> str:
    """The end of a run whose next plan is none: what counts is how the last one ended."""
    why = why_given_up(state["candidates"], state.get("review"), state["round"] + 1)
    return f"{why}\nAnother plan could not be had: {reason}"


def after_plan(state: TeamState) -> Literal["fan_out", "end"]:
    """Route: a plan is coded; a failure ends the run."""
    return "end" if state.get("failure") else "fan_out"


def after_next_round(state: TeamState) -> Literal["fan_out", "plan", "end"]:
    """Route: a new round of the same plan, another plan, or the end."""
    if state.get("failure"):
        return "end"
    used = any(c.round == state["round"] for c in state["candidates"])
    return "plan" if used else "fan_out"


def after_choice(state: TeamState) -> Literal["accepted", "again", "end"]:
    """Route: accepted, another round, or the end because of a failure."""
    verdict = state.get("review")
    if state.get("failure"):
        return "end"
    return "accepted" if verdict is not None and verdict.verdict == "accept" else "again"


def fan_out(state: TeamState, candidates: int) -> list[Attempt]:
    """What each candidate of the state's round starts from."""
    number = state["round"]
    of_this_plan = [c for c in state.get("candidates", []) if c.round >= state["first_round"]]
    start = best_so_far(of_this_plan)
    return [
        Attempt(
            task=state["task"],
            test_command=state["test_command"],
            plan=state["plan"],
            round=number,
            index=index,
            start_from=start,
            review=state.get("review"),
        )
        for index in range(candidates)
    ]


def why_given_up(candidates: Sequence[Candidate], verdict: Review | None, rounds: int) -> str:
    """One line for the end of a run without an accepted candidate."""
    times = f"after {rounds} round{'s' if rounds > 1 else ''}"
    if verdict is not None:
        remarks = "; ".join(comment.text for comment in verdict.comments) or "no reason given"
        return f"The reviewer still asks for a revision {times}: {remarks}"
    best = best_so_far(candidates)
    if best is None:
        reasons = {c.reason for c in candidates if c.reason}
        return f"No usable answer {times}: {'; '.join(sorted(reasons)) or 'nothing came'}"
    if best.weakened:
        return f"No candidate passed the tests without weakening them {times}: {best.weakened}"
    said = best.tests.summary if best.tests else best.reason
    return f"No candidate passed the tests {times}: {said}"


async def run_graph(
    task: Task,
    test_command: tuple[str, ...] | None,
    context: TeamContext,
    saver: AsyncSqliteSaver | None,
    *,
    resume: bool = False,
) -> TeamState:
    """Run one task through the graph; the last state. Raises what nodes do not mend.

    With `resume` it goes on from the checkpoint that an earlier process of the run left. One that
    cannot be kept ends nothing: the steps are done again without, with the answers that are there.
    Tracing stays off whatever the environment says: it would send prompts to a server of others.
    """
    begin: TeamState = {"task": task, "test_command": test_command, "candidates": []}
    with tracing_context(enabled=False):
        try:
            return await _invoke(begin, context, saver, resume=resume)
        except sqlite3.Error as error:
            text = f"Checkpoints cannot be kept ({error}): the steps are done again without."
            context.journal.emit("notice", text=text)
        context.memory.begin_again()
        context.races.clear()
        context = replace(context, first_plan=None)  # it may have been cancelled with its node
        return await _invoke(begin, context, None, resume=False)


async def _invoke(
    begin: TeamState, context: TeamContext, saver: AsyncSqliteSaver | None, *, resume: bool
) -> TeamState:
    graph = build_graph(context.candidates, dry_run=context.settings.dry_run, checkpointer=saver)
    config: RunnableConfig = {
        "configurable": {"thread_id": context.workspace.run},
        "recursion_limit": 200,
    }
    given: TeamState | None = begin
    if resume and saver is not None:
        left = await take_up(graph, saver, config, context)
        if left is not None:
            state, over = left
            if over:
                return state
            given = None  # langgraph's word for: go on
    last: Any = await graph.ainvoke(given, config, context=context)
    reached: TeamState = last
    return reached


def build_graph(
    candidates: int, *, dry_run: bool = False, checkpointer: Checkpointer = None
) -> Graph:
    """The compiled graph for a number of candidates per round.

    Finished candidates are checkpointed one by one: a resumed run does not pay for them again.
    """

    def to_candidates(state: TeamState) -> list[Send]:
        return [Send("code", work) for work in fan_out(state, candidates)]

    def from_plan(state: TeamState) -> list[Send] | str:
        return END if dry_run or after_plan(state) == "end" else to_candidates(state)

    def from_choice(state: TeamState) -> str:
        return "next_round" if after_choice(state) == "again" else END

    def from_next_round(state: TeamState) -> list[Send] | str:
        route = after_next_round(state)
        return to_candidates(state) if route == "fan_out" else {"plan": "plan", "end": END}[route]

    graph: StateGraph[TeamState, TeamContext, TeamState, TeamState] = StateGraph(
        TeamState, context_schema=TeamContext
    )
    graph.add_node("plan", plan)
    node: Any = code  # its input is an Attempt, not the state
    graph.add_node("code", node, input_schema=Attempt)
    graph.add_node("choose", choose)
    graph.add_node("next_round", next_round)
    graph.add_edge(START, "plan")
    graph.add_conditional_edges("plan", from_plan, ["code", END])
    graph.add_edge("code", "choose")
    graph.add_conditional_edges("choose", from_choice, ["next_round", END])
    graph.add_conditional_edges("next_round", from_next_round, ["code", "plan", END])
    return graph.compile(checkpointer=checkpointer)
