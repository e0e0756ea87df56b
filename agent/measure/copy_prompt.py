"""The prompt on which servers are compared: copy a file with one line more, as a coder does.

Such an answer is where speculation can help; and whether a model copies at all shows in its answer.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from agent.core.prompt_encoder import PromptEncoder
from agent.core.prompts import Prompt
from agent.measure.traffic import made_up_file

_MOST_FUNCTIONS = 96
_COPIED = 0.8
"""Part of the answer that must be in the file, in its order."""
_TELLING = 40
"""Characters; a shorter answer says nothing."""


@dataclass(frozen=True)
class CopyPrompt:
    """A prompt, and the file that the answer to it should begin with."""

    ids: list[int]
    file: str

    def is_copied_by(self, answer: str) -> bool:
        """Whether the answer is the file, as far as it goes; a fence before it does not count."""
        text = answer.lstrip()
        if text.startswith("```"):
            text = text.partition("\n")[2]
        if len(text) < _TELLING:
            return False
        # Without autojunk: it would take letters that are frequent for noise.
        matcher = difflib.SequenceMatcher(None, text, self.file[: len(text)], autojunk=False)
        return matcher.ratio() >= _COPIED


async def copy_prompt(encoder: PromptEncoder, tokens: int) -> CopyPrompt:
    """One of about so many tokens, as near as whole functions come. Raises a BackendError."""
    few, more = await _of(encoder, 1), await _of(encoder, 9)
    each = (len(more.ids) - len(few.ids)) / 8
    wanted = 1 + round((tokens - len(few.ids)) / each)
    return await _of(encoder, min(max(wanted, 1), _MOST_FUNCTIONS))


async def _of(encoder: PromptEncoder, functions: int) -> CopyPrompt:
    file = made_up_file(functions)
    user = (
        "Append the line `DONE = True` to this file. Answer with the whole new file in one fence "
        f"and nothing else.\n\n```python\n{file}```"
    )
    encoded = await encoder.encode(Prompt("You edit Python files.", user, "", ""))
    return CopyPrompt(encoded.ids, file)
