"""What a running server shows: where it keeps what, what it serves, and what it answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from agent.core.backend_manager import Backend, Request
from agent.core.daemon_record import Serving
from agent.core.doctor_check import Check, failed, warned
from agent.core.errors import BackendError, BadAnswer
from agent.core.gpu_flaws import Flaw
from agent.core.gpu_truth import GpuTruth, describe
from agent.core.llamacpp_server import LlamaCppServer
from agent.core.prompts import Prompt
from agent.core.restore_probe import Restore
from agent.core.sampling import CODING

_LEAST_CONTEXT = 4096
"""Tokens per slot below which a task of some size does not fit: the default."""
_ANSWER_TOKENS = 64
_SCHEMA_FIX = (
    "Planner and reviewer answer in JSON: use another llama-server (turbo server binaries), or "
    "another model."
)
_PROMPT = Prompt(
    system="You are a helpful assistant.",
    shared="",
    role="",
    volatile="Write a Python function that adds two numbers.",
)
"""No word of JSON: only the grammar can make the answer one."""


class _Probe(BaseModel):
    """Nothing that a model would write unless it is made to."""

    model_config = ConfigDict(extra="forbid")

    signal: Literal["amber", "violet"]
    count: int = Field(ge=0, le=9)


def check_server(
    server: LlamaCppServer, seconds: float, notices: Sequence[str], daemon: Sequence[str]
) -> Check:
    """A server that is ready after `seconds`; `notices` are what was said of it meanwhile, `daemon`
    why it is not the one of the daemon, where there is one."""
    found = " ".join((f"{server.plan.description}, ready after {seconds:.1f} s", *daemon))
    details: dict[str, Any] = {
        "argv": list(server.plan.argv),
        "log": str(server.log),
        "notes": [*daemon, *notices],
        "seconds": round(seconds, 3),
    }
    if server.plan.notes:
        return warned(
            "server",
            f"{found}. {' '.join(server.plan.notes)}",
            "turbo server plan shows every flag with its reason.",
            details,
        )
    return Check(name="server", state="ok", found=found, details=details)


def check_daemon(serving: Serving) -> Check:
    """The server that the daemon has, which runs would use."""
    details = {"argv": list(serving.argv), "log": str(serving.log), "pid": serving.process.pid}
    found = f"{serving.description}, the one of the daemon, which a run uses"
    return Check(name="server", state="ok", found=found, details=details)


def check_gpu(truth: GpuTruth, flaws: Sequence[Flaw]) -> Check:
    """Where model and KV cache really are, and what is wrong with that."""
    name = "layers and buffers"
    details = {
        "layers_on_gpus": truth.layers,
        "layers": truth.of,
        "buffers": [
            {
                "device": x.device,
                "description": x.description,
                "model": x.model,
                "kv": x.kv,
                "compute": x.compute,
            }
            for x in truth.buffers
        ],
    }
    if flaws:
        found = " ".join(x.found for x in flaws)
        fix = " ".join(x.fix for x in flaws)
        shown = describe(truth)
        return warned(name, f"{found} {shown}".rstrip(), fix, details)
    if not truth.told:
        return Check(name=name, state="not checked", found="this build does not log its buffers")
    return Check(name=name, state="ok", found=describe(truth), details=details)


def check_restore(restore: Restore | None) -> Check:
    """What saved prefixes are good for; None: none are saved."""
    name = "restore probe"
    if restore is None:
        return Check(name=name, state="not checked", found="nothing is saved here")
    details = {"restore": restore.value}
    if restore is Restore.NONE:
        return warned(
            name,
            "this server does not reuse a saved prefix: each slot computes what all share",
            "Use another llama-server (turbo server binaries), or set PREFIX_BANK_MAX_MB=0.",
            details,
        )
    found = "a saved prefix is reused"
    if restore is Restore.EXTENSION:
        found += ", by prompts that go on after its end (a trait of the model)"
    return Check(name=name, state="ok", found=found, details=details)


def check_context(backend: Backend) -> Check:
    """Tokens of one request, as served."""
    name, details = "context per slot", {"tokens": backend.context}
    found = f"{backend.context:,} tokens"
    if backend.context < _LEAST_CONTEXT:
        fix = "Raise LLAMACPP_CONTEXT_SIZE where model and memory allow it, or show fewer files."
        return warned(name, f"{found}; larger tasks do not fit", fix, details)
    return Check(name=name, state="ok", found=found, details=details)


def check_slots(backend: Backend) -> Check:
    """Requests at the same time, as served."""
    name, details = "slots", {"slots": backend.slots}
    if backend.slots == 1:
        fix = "Raise LLAMACPP_PARALLEL, or --parallel of the server at LLAMACPP_URL."
        return warned(name, "1: candidates are written one after the other", fix, details)
    return Check(name=name, state="ok", found=str(backend.slots), details=details)


async def check_schema(backend: Backend) -> Check:
    """Whether an answer is held to a schema, tried with a question that suggests none."""
    name = "schema probe"
    request = Request(prompt=_PROMPT, sampling=CODING, max_tokens=_ANSWER_TOKENS)
    try:
        _, reply = await backend.complete_json(request, _Probe)
    except BadAnswer as error:
        shown = str(error).replace("\n", " ")
        return Check(
            name=name,
            state="failure",
            found=f"answers are not held to it: {shown}",
            fix=_SCHEMA_FIX,
        )
    except BackendError as error:
        return failed(name, error)
    return Check(
        name=name,
        state="ok",
        found="answers are held to their schema",
        details={"answer": reply.text},
    )
