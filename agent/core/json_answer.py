"""Answers as JSON: the schema that constrains them, and the check that follows all the same.

A grammar does not make an answer whole: one that is cut is valid up to the cut, and validators of
a model know more than its schema does.
"""

from __future__ import annotations

from dataclasses import replace

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from agent.core.backend_manager import Answer, Reply, Request, Usage
from agent.core.errors import BadAnswer

_SHOWN = 200
"""Characters of a bad answer that its error shows."""


class UnfitAnswer(BadAnswer):
    """A whole reply that does not validate.

    The message is fit for the next prompt: it names what is wrong and repeats nothing of the
    answer. People are shown its beginning too.
    """

    def __init__(self, message: str, *, excerpt: str, usage: Usage) -> None:
        super().__init__(message)
        self.excerpt = excerpt
        """The start of the answer."""
        self.usage = usage
        """What it cost all the same."""

    def __str__(self) -> str:
        return f"{super().__str__()}\nIt begins: {self.excerpt}"


def constrained(request: Request, answer: type[Answer]) -> Request:
    """The request, with the schema of `answer`."""
    return replace(request, json_schema=answer.model_json_schema())


def parse_answer(reply: Reply, answer: type[Answer]) -> Answer:
    """The validated answer. Raises UnfitAnswer with the reason and the start of the text."""
    try:
        return answer.model_validate_json(reply.text)
    except ValidationError as error:
        if reply.finish == "length":
            reason = f"cut off after {reply.usage.predicted} tokens"
        else:
            reason = "; ".join(
                f"{_place(problem)}: {problem['msg']}"
                for problem in error.errors(include_url=False)
            )
    shown = reply.text[:_SHOWN] + ("..." if len(reply.text) > _SHOWN else "")
    raise UnfitAnswer(
        f"The answer is no valid {answer.__name__}: {reason}", excerpt=shown, usage=reply.usage
    )


def _place(problem: ErrorDetails) -> str:
    # the name of a key that should not be there is the model's own text
    place = problem["loc"][:-1] if problem["type"] == "extra_forbidden" else problem["loc"]
    return ".".join(str(x) for x in place) or "answer"
