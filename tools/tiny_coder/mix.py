"""How close samples are to what the product sends."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mix:
    """Shares of samples with some property."""

    exact: float
    """With the shipped prompts, byte for byte; the others word them differently, and shorter."""

    tests_shown: float
    """With the test file in the repository part."""

    synonyms: float = 0.0
    """With some words of the description exchanged."""

    pipelines: float = 0.5
    """With a composed function; the others come from templates."""

    bare: float = 0.0
    """With nothing but a step or a task: the cheapest way to learn what descriptions mean."""

    bare_plans: float = 0.4
    """With a task for the planner, among the bare ones."""

    nonsense: float = 0.0
    """With a description that means nothing, among those for the planner."""


MIXES = {
    "vocabulary": Mix(exact=0.2, tests_shown=0.2),
    "main": Mix(exact=0.06, tests_shown=0.2, synonyms=0.2, nonsense=0.3),
    "finish": Mix(exact=0.5, tests_shown=0.45, synonyms=0.45, nonsense=0.3),
    "bare": Mix(
        exact=0.0,
        tests_shown=0.0,
        synonyms=0.3,
        pipelines=0.22,
        bare=1.0,
        bare_plans=0.3,
        nonsense=0.45,
    ),
    "shipped": Mix(exact=1.0, tests_shown=0.45),
}
"""Most tokens go to short prompts, since what is to be learned is in the task."""
