"""A fake llama-server that answers by role, for what a real small model cannot be made to say.

Like every fake it speaks the real protocol; only the text of the answers is scripted.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from typing import Any

from fakes.http_server import Call, Responder
from fakes.llama_server import FakeLlamaServer, answer

Speak = Callable[[str, int], str]
"""From the whole prompt and the number of earlier calls of that role to the answer."""

ACCEPT = json.dumps({"verdict": "accept", "comments": []})


def plan(path: str, instruction: str = "Write it.", **more: Any) -> str:
    step = {"path": path, "action": "create", "instruction": instruction, "depends_on": []}
    return json.dumps({"summary": "Do it", "steps": [step], "read": []} | more)


def revise(text: str, file: str = "x.py") -> str:
    comment = {"file": file, "line": 1, "severity": "error", "text": text}
    return json.dumps({"verdict": "revise", "comments": [comment]})


def code(text: str) -> str:
    return f"```python\n{text}```"


class FakeTeamServer(FakeLlamaServer):
    """Every request of a role is answered by that role's function, as often as it comes."""

    def __init__(
        self, *, delay_s: float = 0.0, context: int = 20_000, **roles: Speak | str
    ) -> None:
        super().__init__(context=context, slots=4)
        self._roles = roles
        self.delay_s = delay_s
        """Seconds before each answer from now on."""
        self.prompts: list[tuple[str, str]] = []
        """Role and whole prompt of every request, as they came."""

    async def _dispatch(self, call: Call, reply: Responder) -> None:
        if call.path != "/completion":
            await super()._dispatch(call, reply)
            return
        prompt = "".join(chr(number) for number in call.body["prompt"])
        found = re.findall(r"^# Role: (coder, repair|\w+)", prompt, re.MULTILINE)
        role = found[-1].replace("coder, repair", "repair")
        earlier = sum(name == role for name, _ in self.prompts)
        self.prompts.append((role, prompt))
        said = self._roles[role]
        text = said if isinstance(said, str) else said(prompt, earlier)
        await asyncio.sleep(self.delay_s)
        await answer(*text)(call, reply)
