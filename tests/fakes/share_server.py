"""Uses the server at LLAMACPP_URL as a run does, and says when it had which slot.

Arguments: a name that its answers carry, how many ask at the same time, how often each of these
asks, and the numbers in an answer. Prints `ready` when the backend is open, begins after a line of
input, prints `everywhere` once it has had every slot, and one JSON object per answer.
"""

from __future__ import annotations

import asyncio
import json
import sys
from time import monotonic  # the same for all processes of a machine

from agent.core.backend_manager import Backend, Progress, Request, get_backend
from agent.core.config import load_settings
from agent.core.prompts import Prompt
from agent.core.sampling import CODING


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


async def ask(backend: Backend, who: str, numbers: int, had: set[int]) -> None:
    times: list[float] = []

    def watch(progress: Progress) -> None:
        if progress.slot is None:
            return
        times.append(monotonic())
        if progress.phase == "decode" and progress.slot not in had:
            had.add(progress.slot)
            if len(had) == backend.slots:
                say("everywhere")

    many = {"type": "array", "items": {"enum": [1, 2]}, "minItems": numbers, "maxItems": numbers}
    schema = {
        "type": "object",
        "properties": {"who": {"const": who}, "numbers": many},
        "required": ["who", "numbers"],
        "additionalProperties": False,
    }
    prompt = Prompt("You write code.", "def add(a, b):\n", "Complete the code.\n", who)
    sampling = CODING.warmer(1.2)
    reply = await backend.complete(
        Request(prompt=prompt, sampling=sampling, max_tokens=3500, json_schema=schema), watch
    )
    answer = {"asked": who, "slot": reply.slot, "since": times[0], "until": times[-1]}
    say(json.dumps({**answer, "missed": reply.miss is not None, "text": reply.text}))


async def main(name: str, workers: int, each: int, numbers: int) -> None:
    had: set[int] = set()

    async def work(worker: int) -> None:
        for number in range(each):
            await ask(opened.backend, f"{name}{worker}.{number}", numbers, had)

    async with get_backend(load_settings()) as opened:
        say("ready")
        sys.stdin.readline()
        async with asyncio.TaskGroup() as group:
            for worker in range(workers):
                group.create_task(work(worker))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], *map(int, sys.argv[2:])))
