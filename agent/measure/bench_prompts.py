"""The prompts of a benchmark: those of a workflow, with a first word of our choice.

Two prompts that begin with different words share nothing that a cache could hold, on any backend:
that is what makes cold really cold, where no backend has a way to be told to forget.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace

from agent.core.backend_manager import Backend
from agent.core.errors import ContextTooSmall
from agent.core.prompts import Prompt
from agent.measure.traffic import most_functions, workflow

_AROUND = 64
"""Tokens of the chat template and of the first word, at the most."""


@dataclass(frozen=True, kw_only=True)
class Prompts:
    """Prompts of one size."""

    functions: int
    """Of the made-up file that they show."""
    tokens: int
    """Of what they share."""

    def of(self, mark: str) -> dict[str, tuple[Prompt, ...]]:
        """The workflow of a repository that nobody has seen before, by phase."""
        return {
            phase: tuple(marked(prompt, mark) for prompt in prompts)
            for phase, prompts in workflow(self.functions).items()
        }


def marked(prompt: Prompt, mark: str) -> Prompt:
    """The same prompt with `mark` as its first word."""
    return replace(prompt, system=f"{mark} {prompt.system}")


def new_mark() -> str:
    """A word that no prompt of ours has begun with."""
    return secrets.token_hex(6)


async def fitting(
    backend: Backend, *, wanted: int, answer: int, before: Prompts | None = None
) -> Prompts:
    """Prompts that share about `wanted` tokens, fewer where an answer of `answer` tokens would not
    fit into the context any more; those of a backend `before`, if they fit here, too.

    Raises ContextTooSmall when not even the shortest one fits, BackendError.
    """
    best: Prompts | None = None
    most = before.functions if before else most_functions()
    for functions in range(1, most + 1):
        phases = workflow(functions)
        plan = phases["plan"][0]
        every = (prompt for prompts in phases.values() for prompt in prompts)
        longest = max(every, key=lambda prompt: len(prompt.user))
        whole = await backend.count_tokens(longest.system + longest.user) + _AROUND
        if whole + answer > backend.context:
            break
        tokens = await backend.count_tokens(plan.system + plan.shared)
        best = Prompts(functions=functions, tokens=tokens)
        if tokens >= wanted and before is None:
            break
    if best is None:
        raise ContextTooSmall(
            prompt=whole, answer=answer, context=backend.context, setting="LLAMACPP_CONTEXT_SIZE"
        )
    return before if before and before.functions == best.functions else best
