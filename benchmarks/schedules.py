"""What the way of sending a workflow's prompts is worth: five schedules of the same prompts.

    python benchmarks/schedules.py [--shape qwen2.5-coder-0.5b | --model GGUF] [--answer 60]
        [--threads 2] [--only a,d] [--repeat 1] [--json FILE]

(a) one after the other, nothing cached, a new connection per request; (b) one after the other, the
slot keeps its cache; (c) four slots, the server chooses among them; (d) our backend, nothing saved
yet; (e) our backend after a restart of the server, with the prefixes that (d) has saved. (a) to (c)
are httpx and nothing else, and post token ids that are ready.

The prompts (agent/measure/traffic.py) and so their token ids are the same in all five, answers have
one length.
By default the model has the shape of a real one and random weights (shape_model.py): that measures
time, not quality. Each schedule has a server of its own, started by our `open_server` with the same
settings except for the number of slots, with a cache folder that is removed in the end. So (c) has
our flags, too: one KV buffer per slot, no copies of idle slots in memory.

Not in the figures: the start of the server; what opening our backend costs (once per model file
its digest, once per build some 60 tokens that try out whether restoring works); for (a) to (c)
also chat template and tokenizer, which ours uses within the measured time; tests and git of a
real run, which lie between the phases. Wall seconds are the sum of the four phases; between them
the server's counters are read.

(a)/(d) depends on how much cheaper it is to write four answers together than one after the other,
and that on the quantisation. On 2 cores without AMX, with this file: F16 4.8, Q8_0 3.3, Q4_0 3.2,
where four streams write 2.0, 1.15 and 1.6 times as many tokens per second as one. All that is left
in (d) then is each distinct token once, and answers.

Longer than other files here, because sending, measuring and the tables are of use only together.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import httpx
import psutil

from agent.core.backend_manager import Backend, Progress, Request, get_backend
from agent.core.config import Settings
from agent.core.errors import TurboError
from agent.core.gguf_info import read_gguf
from agent.core.llamacpp_backend import LlamaCppBackend
from agent.core.llamacpp_client import LlamaCppClient
from agent.core.llamacpp_server import LlamaCppServer
from agent.core.llamacpp_wire import Failure, Final, Piece, parse_event
from agent.core.prompt_encoder import PromptEncoder
from agent.core.server_launching import open_server
from agent.measure.traffic import Call, Traffic, encode

SHAPES = Path("/tmp/shapes")
STALL_S = 600.0


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """One way of sending the prompts."""

    letter: str
    name: str
    slots: int
    ours: bool = False
    cached: bool = True
    keep_connection: bool = True

    @property
    def at_once(self) -> bool:
        """Whether requests run at the same time where the workflow allows it."""
        return self.slots > 1


SCHEDULES = (
    Schedule(
        letter="a", name="in turn, no cache, new connections", slots=1,
        cached=False, keep_connection=False,
    ),
    Schedule(letter="b", name="in turn, one slot with its cache", slots=1),
    Schedule(letter="c", name="4 slots, the server's choice", slots=4),
    Schedule(letter="d", name="ours, nothing saved yet", slots=4, ours=True),
    Schedule(letter="e", name="ours, server restarted, prefix saved", slots=4, ours=True),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One request, seen from outside."""

    first_token_s: float
    total_s: float
    computed: int
    """Prompt tokens by its own account."""
    predicted: int


@dataclass(frozen=True, kw_only=True)
class Figures:
    """One phase."""

    wall_s: float
    computed: int
    """Prompt tokens by the server's counter prompt_tokens_total."""
    decodes: int
    """Calls of llama_decode, those that read prompts included."""
    busy: float
    """Slots at work, summed over these calls."""
    others_s: float
    """CPU seconds of everything else on this machine meanwhile."""
    answers: tuple[Answer, ...]


@dataclass(frozen=True, kw_only=True)
class Run:
    """One schedule, once."""

    schedule: str
    repetition: int
    phases: dict[str, Figures]

    def wall_s(self) -> float:
        """Of all phases."""
        return sum(x.wall_s for x in self.phases.values())

    def computed(self) -> int:
        """Prompt tokens of all phases."""
        return sum(x.computed for x in self.phases.values())

    def first_token_s(self) -> float:
        """What whoever waits for the plan waits for."""
        return self.phases["plan"].answers[0].first_token_s

    def busy(self) -> float:
        """Mean number of slots at work per call of llama_decode while the candidates run."""
        phase = self.phases["candidates"]
        return phase.busy / phase.decodes

    def others(self) -> float:
        """Cores that everything else on this machine took, on average: how far to trust `wall_s`.
        Two threads that wait for each other lose more than that."""
        return sum(x.others_s for x in self.phases.values()) / self.wall_s()


class Side(Protocol):
    """Whoever sends the requests."""

    async def ask(self, call: Call, answer: int) -> Answer:
        """Send one and read its answer to the end."""
        ...


class Bare:
    """httpx and nothing else."""

    def __init__(self, server: LlamaCppServer, *, cached: bool, client: httpx.AsyncClient | None):
        self._server = server
        self._cached = cached
        self._client = client

    async def ask(self, call: Call, answer: int) -> Answer:
        """See `Side.ask`."""
        if self._client is not None:
            return await self._ask(self._client, call, answer)
        async with new_client(self._server) as client:
            return await self._ask(client, call, answer)

    async def _ask(self, client: httpx.AsyncClient, call: Call, answer: int) -> Answer:
        body = {
            "prompt": call.ids,
            "n_predict": answer,
            "cache_prompt": self._cached,
            "stream": True,
            "return_progress": True,
            "seed": call.sampling.seed,
            "samplers": ["top_k", "top_p", "temperature"],
            "top_k": call.sampling.top_k,
            "top_p": call.sampling.top_p,
            "temperature": call.sampling.temperature,
        }
        began, first = time.perf_counter(), 0.0
        # llama-server closes the connection of a stream without announcing it.
        close = {"Connection": "close"}
        async with client.stream("POST", "/completion", json=body, headers=close) as response:
            response.raise_for_status()
            async for line in response.aiter_lines():
                if not line.startswith("data: "):
                    continue
                event = parse_event(line.removeprefix("data: ").encode())
                if isinstance(event, Failure):
                    raise RuntimeError(f"llama-server: {event.message}")  # noqa: TRY004
                if isinstance(event, (Piece, Final)) and not first:
                    first = time.perf_counter()
                if isinstance(event, Final):
                    return Answer(
                        first_token_s=first - began,
                        total_s=time.perf_counter() - began,
                        computed=event.computed,
                        predicted=event.predicted,
                    )
        raise RuntimeError("llama-server ended the stream before the answer was complete")


class Ours:
    """The product's backend."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def ask(self, call: Call, answer: int) -> Answer:
        """See `Side.ask`."""
        began, first = time.perf_counter(), 0.0

        def see(progress: Progress) -> None:
            nonlocal first
            if progress.phase == "decode" and not first:
                first = time.perf_counter()

        request = Request(
            prompt=call.prompt, sampling=call.sampling, max_tokens=answer, alike=call.alike
        )
        reply = await self._backend.complete(request, see)
        ended = time.perf_counter()
        if reply.usage.prompt != len(call.ids):
            raise RuntimeError(f"{reply.usage.prompt} prompt tokens instead of {len(call.ids)}")
        if reply.miss is not None:
            say(f"  cache miss: {reply.miss}")
        return Answer(
            first_token_s=(first or ended) - began,
            total_s=ended - began,
            computed=reply.usage.computed,
            predicted=reply.usage.predicted,
        )


def new_client(server: LlamaCppServer) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        base_url=server.url,
        headers={"Authorization": f"Bearer {server.api_key}"},
        timeout=STALL_S,
        trust_env=False,
    )


@asynccontextmanager
async def opened(
    schedule: Schedule, settings: Settings
) -> AsyncIterator[tuple[Side, httpx.AsyncClient]]:
    """Who sends the requests, and a client that may ask for the server's counters."""
    async with AsyncExitStack() as stack:
        if schedule.ours:
            backend = (await stack.enter_async_context(get_backend(settings))).backend
            assert isinstance(backend, LlamaCppBackend)
            # Nobody but the backend has the key of its server, and the team needs no counters.
            yield Ours(backend), backend._client._http
            return
        server = await stack.enter_async_context(open_server(settings))
        client = await stack.enter_async_context(new_client(server))
        kept = client if schedule.keep_connection else None
        yield Bare(server, cached=schedule.cached, client=kept), client


async def counters(client: httpx.AsyncClient) -> tuple[int, int, float]:
    """Of the server since its start: prompt tokens, calls of llama_decode, busy slots in them."""
    text = (await client.get("/metrics")).raise_for_status().text
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    prompt, calls, busy = (
        float(values[f"llamacpp:{name}"])
        for name in ("prompt_tokens_total", "n_decode_total", "n_busy_slots_per_decode")
    )
    return int(prompt), int(calls), calls * busy


def cpu_of_others() -> float:
    """CPU seconds since the start of the machine, without those of this program and its server."""
    now = psutil.cpu_times()
    me = psutil.Process()
    mine = [process.cpu_times() for process in (me, *me.children(recursive=True))]
    return now.user + now.nice + now.system - sum(x.user + x.system for x in mine)


async def play(schedule: Schedule, settings: Settings, traffic: Traffic) -> dict[str, Figures]:
    """Send everything once, on a fresh server; by phase."""
    found = {}
    async with opened(schedule, settings) as (side, client):
        before = await counters(client)
        for stage in traffic.stages:
            others_s, began = cpu_of_others(), time.perf_counter()
            if schedule.at_once and stage.at_once:
                jobs = [side.ask(call, traffic.answer) for call in stage.calls]
                answers = await asyncio.gather(*jobs)
            else:
                answers = [await side.ask(call, traffic.answer) for call in stage.calls]
            wall_s, others_s = time.perf_counter() - began, cpu_of_others() - others_s
            after = await counters(client)
            found[stage.name] = Figures(
                wall_s=wall_s,
                computed=after[0] - before[0],
                decodes=after[1] - before[1],
                busy=after[2] - before[2],
                others_s=others_s,
                answers=tuple(answers),
            )
            before = after
            lengths = [x.predicted for x in answers]
            say(f"  {stage.name}: {wall_s:.2f} s, others {others_s:.2f} s, answers of {lengths}")
            if traffic.exact and set(lengths) != {traffic.answer}:
                raise RuntimeError(f"answers of {lengths} tokens instead of {traffic.answer}")
    return found


async def prepare(settings: Settings, answer: int, *, exact: bool) -> Traffic:
    """The workflow as the token ids of this model."""
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(open_server(settings, notice=say))
        say(server.description)
        client = LlamaCppClient(server.url, api_key=server.api_key, stall_timeout_s=STALL_S)
        stack.push_async_callback(client.aclose)
        encoder = PromptEncoder(client, bos=(await client.props()).bos)
        stack.push_async_callback(encoder.aclose)
        await encoder.learn()
        stages, shared = await encode(encoder)
    return Traffic(stages=stages, shared=shared, answer=answer, exact=exact)


async def measure(
    schedules: Sequence[Schedule], settings: Settings, traffic: Traffic, folder: Path, repeat: int
) -> list[Run]:
    """All schedules in turn, and that `repeat` times. `folder` takes one cache per repetition."""
    runs = []
    for repetition in range(repeat):
        os.environ["XDG_CACHE_HOME"] = str(folder / f"cache-{repetition}")
        for schedule in schedules:
            say(f"{repetition + 1} of {repeat}, ({schedule.letter}) {schedule.name}")
            mine = settings.model_copy(update={"llamacpp_parallel": schedule.slots})
            phases = await play(schedule, mine, traffic)
            runs.append(Run(schedule=schedule.letter, repetition=repetition, phases=phases))
    return runs


@dataclass(frozen=True, kw_only=True)
class Bar:
    """What the project has set itself; `least` or `most` is the bound."""

    name: str
    value: float
    least: float | None = None
    most: float | None = None

    @property
    def row(self) -> list[str]:
        """A line of the table."""
        if self.least is not None:
            wanted, reached = f">= {self.least:g}", self.value >= self.least
        else:
            wanted, reached = f"<= {self.most:g}", self.value <= (self.most or 0)
        return [self.name, f"{self.value:.3f}", wanted, "yes" if reached else "**no**"]


class Report:
    """The runs as tables. Ratios are taken within each repetition, then their median."""

    def __init__(self, runs: Sequence[Run], traffic: Traffic) -> None:
        self._traffic = traffic
        self._by_letter = {
            schedule.letter: [x for x in runs if x.schedule == schedule.letter]
            for schedule in SCHEDULES
        }

    def bars(self) -> list[Bar]:
        """Those for which everything was measured."""
        found = []
        for top, bottom, what, figure, least in (
            ("a", "d", "wall", Run.wall_s, 3.5),
            ("c", "d", "wall", Run.wall_s, 1.4),
            ("d", "e", "first token of the plan", Run.first_token_s, 4.0),
        ):
            pairs = list(zip(self._by_letter[top], self._by_letter[bottom], strict=False))
            if pairs:
                ratio = statistics.median(figure(x) / figure(y) for x, y in pairs)
                found.append(Bar(name=f"({top})/({bottom}) {what}", value=ratio, least=least))
        if self._by_letter["d"]:
            computed = self._median("d", Run.computed) / self._traffic.ideal
            busy = self._median("d", Run.busy)
            found.append(Bar(name="(d) computed / ideal", value=computed, most=1.02))
            found.append(Bar(name="(d) busy slots, candidates", value=busy, least=3.6))
        return found

    def lines(self) -> list[str]:
        """Everything in Markdown."""
        traffic, ideal = self._traffic, self._traffic.ideal
        shown = [x for x in SCHEDULES if self._by_letter[x.letter]]
        main = [
            [
                f"({x.letter}) {x.name}",
                f"{self._median(x.letter, Run.wall_s):.2f}",
                f"{self._median(x.letter, Run.computed):,.0f}",
                f"{ideal:,}",
                f"{self._median(x.letter, Run.computed) / ideal:.3f}",
                f"{self._median(x.letter, Run.first_token_s):.3f}",
                f"{self._median(x.letter, Run.busy):.2f}",
                f"{self._median(x.letter, Run.others):.2f}",
            ]
            for x in shown
        ]
        head = ["schedule", "wall s", "prompt tokens computed", "ideal", "computed / ideal"]
        head += ["first token of the plan s", "busy slots, candidates", "cores taken by others"]
        phases = [
            [f"({x.letter})", *(self._phase(x.letter, stage.name) for stage in traffic.stages)]
            for x in shown
        ]
        phases.append(["ideal", *(f"{stage.ideal:,} tokens" for stage in traffic.stages)])
        columns = [f"{len(stage.calls)} x {stage.name}" for stage in traffic.stages]
        return [
            *table(head, main),
            "",
            *table(["bar", "measured", "wanted", "reached"], [bar.row for bar in self.bars()]),
            "",
            "Wall seconds and computed prompt tokens by phase:",
            "",
            *table(["schedule", *columns], phases),
        ]

    def _phase(self, letter: str, phase: str) -> str:
        wall_s = self._median(letter, lambda run: run.phases[phase].wall_s)
        return (
            f"{wall_s:.2f} s, {self._median(letter, lambda run: run.phases[phase].computed):,.0f}"
        )

    def _median(self, letter: str, figure: Callable[[Run], float]) -> float:
        return statistics.median(figure(run) for run in self._by_letter[letter])


def table(head: list[str], rows: Sequence[list[str]]) -> list[str]:
    """In Markdown; all columns but the first to the right."""
    rule = ["---", *("---:" for _ in head[1:])]
    return [f"| {' | '.join(row)} |" for row in (head, rule, *rows)]


def model_of(arguments: argparse.Namespace) -> Path:
    """The model to use; a shape is written where it is missing, which takes a while."""
    if arguments.model is not None:
        return Path(arguments.model)
    path = SHAPES / f"{arguments.shape}-q8_0.gguf"
    if not path.exists():
        say(f"writing {path}")
        script = Path(__file__).with_name("shape_model.py")
        done = subprocess.run(
            [sys.executable, script, arguments.shape, path], check=False, stdout=sys.stderr
        )
        if done.returncode != 0:
            raise SystemExit(done.returncode)
    return path


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


async def run(
    arguments: argparse.Namespace, chosen: Sequence[Schedule]
) -> tuple[Traffic, list[Run]]:
    model = model_of(arguments)
    settings = Settings(
        llamacpp_model_path=model,
        llamacpp_threads=arguments.threads,
        llamacpp_context_size=4096,
        request_timeout_s=STALL_S,
    )
    with tempfile.TemporaryDirectory(prefix="turbo-schedules-") as name:
        folder = Path(name)
        os.environ["XDG_CACHE_HOME"] = str(folder / "preparation")
        exact = "random weights" in read_gguf(model).name
        traffic = await prepare(settings, arguments.answer, exact=exact)
        say(f"{traffic.shared} tokens shared, ideal {traffic.ideal}")
        return traffic, await measure(chosen, settings, traffic, folder, arguments.repeat)


def letters(text: str) -> list[Schedule]:
    wanted = set(text.replace(",", " ").split())
    if wanted - {x.letter for x in SCHEDULES}:
        raise argparse.ArgumentTypeError("schedules are named a, b, c, d and e")
    if "e" in wanted and "d" not in wanted:
        raise argparse.ArgumentTypeError("(e) starts from what (d) has saved; name d, too")
    return [x for x in SCHEDULES if x.letter in wanted]


def positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is no whole number above 0")
    return int(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    model = parser.add_mutually_exclusive_group()
    model.add_argument("--shape", default="qwen2.5-coder-0.5b", help="see shape_model.py")
    model.add_argument("--model", type=Path, help="a GGUF file instead of a shape")
    parser.add_argument("--answer", type=positive, default=60, help="tokens of every answer")
    parser.add_argument("--threads", type=positive, default=2, help="of the server")
    parser.add_argument("--only", type=letters, default="a,b,c,d,e", help="such as a,d")
    parser.add_argument("--repeat", type=positive, default=1, help="medians of so many repetitions")
    parser.add_argument("--json", type=Path, help="where the raw figures go")
    arguments = parser.parse_args()
    try:
        traffic, runs = asyncio.run(run(arguments, arguments.only))
    except TurboError as error:
        sys.exit(str(error))
    report = Report(runs, traffic)
    command = shlex.join(["python", "benchmarks/schedules.py", *sys.argv[1:]])
    about = [
        "random weights" if traffic.exact else "a trained model: answers may end early",
        f"{traffic.shared:,} tokens shared by all prompts, answers of {traffic.answer} tokens, "
        f"medians of {arguments.repeat}",
        "busy slots: /metrics, n_busy_slots_per_decode x n_decode_total, over all calls of "
        "llama_decode of the candidates' phase, those that read prompts included",
        "not counted: start of the server, opening the backend; (a) to (c): template and tokenizer",
        f"`{command}`",
    ]
    print("\n".join([*report.lines(), "", *(f"- {line}" for line in about)]))
    if arguments.json is not None:
        raw = {
            "command": command,
            "random_weights": traffic.exact,
            "shared": traffic.shared,
            "answer": traffic.answer,
            "prompts": {
                stage.name: [len(call.ids) for call in stage.calls] for stage in traffic.stages
            },
            "ideal": {stage.name: stage.ideal for stage in traffic.stages},
            "bars": [asdict(bar) for bar in report.bars()],
            "runs": [asdict(run) for run in runs],
        }
        arguments.json.write_text(json.dumps(raw, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
