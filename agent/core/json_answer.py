"""Answers as JSON: the schema that constrains them, and the check that follows all the same.

A grammar does not make an answer whole: one that is cut is valid up to the cut, and validators of
a model know more than its schema does.
"""

from __future__ import annotations

from dataclasses import replace

from pydantic import ValidationError

from agent.core.backend_manager import Answer, Reply, Request
from agent.core.errors import BadAnswer

_SHOWN = 200
"""Characters of a bad answer that its error shows."""


def constrained(request: Request, answer: type[Answer]) -> Request:
    """The request, with the schema of `answer`."""
    return replace(request, json_schema=answer.model_json_schema())


def parse_answer(reply: Reply, answer: type[Answer]) -> Answer:
    """The validated answer. Raises BadAnswer with the reason and the start of the text."""
    try:
        return answer.model_validate_json(reply.text)
    except ValidationError as error:
        if reply.finish == "length":
            reason = f"cut off after {reply.usage.predicted} tokens"
        else:
            reason = "; ".join(
                f"{'.'.join(str(x) for x in problem['loc']) or 'answer'}: {problem['msg']}"
                for problem in error.errors(include_url=False)
            )
    shown = reply.text[:_SHOWN] + ("..." if len(reply.text) > _SHOWN else "")
    raise BadAnswer(f"The answer is no valid {answer.__name__}: {reason}\nIt begins: {shown}")
