"""What it is worth that a slot reads the reviewer's prompt while tests run, and what it costs.

    python -m benchmarks.overlap [--model GGUF | --shape NAME] [--repeat 5] [--tests 2.0]

One round as in a run: a candidate has just been written and its tests run as child processes that
need `--tests` seconds of a core each; then its review is asked. With and without reading ahead, in
turn, on one server: while no slot works, with tests on one core and on all of them, and while two
other candidates decode. Prompts are those of traffic.py, so the part that all share is restored and
only role and diff are read.

Reported, as medians: from the start of the tests to the review's first token; the tests' own wall
time; tokens that the others decoded per second of it. By default on a shape with random weights
(shape_model.py): times, not quality.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import psutil

from agent.core.backend_manager import Backend, Progress, Request, get_backend
from agent.core.config import Settings
from agent.core.prompts import Prompt
from agent.core.sampling import CODING
from agent.measure.traffic import workflow
from benchmarks.schedules import model_of, table

Prompts = dict[str, tuple[Prompt, ...]]
WORK = "import time\nwhile time.process_time() < {seconds}: pass"


@dataclass(frozen=True, kw_only=True)
class Case:
    """What else the machine does."""

    name: str
    processes: int
    """Of the tests."""
    others: int
    """Candidates that decode meanwhile."""


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Of one round, or medians of several."""

    review_s: float
    tests_s: float
    others_tokens_s: float


async def one_round(
    backend: Backend, prompts: Prompts, number: int, tests_s: float, case: Case, *, ahead: bool
) -> Figures:
    """One round; its `number` makes the diff another one, so that no slot still has it."""
    review = prompts["reviews"][number % len(prompts["reviews"])]
    review = replace(review, volatile=f"Candidate {number}\n{review.volatile}")
    known = replace(review, volatile=review.volatile.rpartition("## Tests")[0])
    tokens = dict.fromkeys(range(case.others), 0)
    started = asyncio.Event()

    async def decode(index: int) -> None:
        def watch(progress: Progress) -> None:
            if progress.phase == "decode":
                tokens[index] = progress.done
                if all(tokens.values()):
                    started.set()

        sampling = CODING.with_seed(10 * number + index).warmer(0.8)
        request = Request(
            prompt=prompts["candidates"][0], sampling=sampling, max_tokens=600, alike=case.others
        )
        await backend.complete(request, watch)

    decoding = [asyncio.create_task(decode(index)) for index in tokens]
    if decoding:
        await started.wait()
    before, began = sum(tokens.values()), time.monotonic()
    reading = asyncio.create_task(backend.read_ahead(known)) if ahead else None
    command = (sys.executable, "-c", WORK.format(seconds=tests_s))
    children = [await asyncio.create_subprocess_exec(*command) for _ in range(case.processes)]
    for child in children:
        await child.wait()
    tested, decoded = time.monotonic(), sum(tokens.values()) - before
    if reading is not None:
        await reading
    first: list[float] = []

    def watch(progress: Progress) -> None:
        if progress.phase == "decode":
            first.append(time.monotonic())

    await backend.complete(Request(prompt=review, sampling=CODING, max_tokens=2), watch)
    for task in decoding:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    return Figures(
        review_s=first[0] - began,
        tests_s=tested - began,
        others_tokens_s=decoded / (tested - began),
    )


async def measure(arguments: argparse.Namespace) -> dict[str, Figures]:
    """By case and way, medians."""
    cores = psutil.cpu_count(logical=False) or 1
    cases = (
        Case(name="idle slots, tests on 1 core", processes=1, others=0),
        Case(name=f"idle slots, tests on {cores} cores", processes=cores, others=0),
        Case(name="2 others decode, tests on 1 core", processes=1, others=2),
    )
    settings = Settings(llamacpp_model_path=model_of(arguments), request_timeout_s=600)
    prompts = workflow(functions=24)
    found: dict[str, Figures] = {}
    number = 0
    async with get_backend(settings) as opened:
        for case in cases:
            rounds: dict[bool, list[Figures]] = {False: [], True: []}
            for repetition in range(-1, arguments.repeat):
                for ahead in (False, True):
                    number += 1
                    figures = await one_round(
                        opened.backend, prompts, number, arguments.tests, case, ahead=ahead
                    )
                    if repetition >= 0:  # the first one computes and saves what all share
                        rounds[ahead].append(figures)
            for ahead, each in rounds.items():
                found[f"{case.name}; reading ahead {'on' if ahead else 'off'}"] = median(each)
    return found


def median(rounds: list[Figures]) -> Figures:
    """Of each figure."""
    dicts = [asdict(figures) for figures in rounds]
    return Figures(**{key: statistics.median(x[key] for x in dicts) for key in dicts[0]})


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path)
    parser.add_argument("--shape", default="qwen2.5-coder-0.5b")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--tests", type=float, default=2.0, help="CPU seconds of the tests")
    found = asyncio.run(measure(parser.parse_args()))
    head = ["case", "review's first token s", "tests s", "others tokens/s"]
    rows = [[name, *(f"{x:.2f}" for x in asdict(each).values())] for name, each in found.items()]
    print("\n".join(table(head, rows)))
    print(json.dumps({name: asdict(each) for name, each in found.items()}))


if __name__ == "__main__":
    main()
