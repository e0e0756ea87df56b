"""Why a llama-server ended, read from its exit status and the end of its log. Pure.

The server exits 1 for everything that goes wrong while it starts (llama_server_facts.md, rule 13),
so its log is the only witness.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import Literal

from agent.core.llamacpp_binary import INSTALL

Kind = Literal["port", "model", "memory", "flag", "device", "cpu", "library", "killed", "other"]


@dataclass(frozen=True, kw_only=True)
class Death:
    """A cause and the way out."""

    kind: Kind
    reason: str
    """A clause that follows "llama-server"."""
    fix: str


_MEMORY_FIX = (
    "Use a smaller model or quantisation, lower LLAMACPP_CONTEXT_SIZE or LLAMACPP_PARALLEL, "
    "or close other programs."
)
_OTHER_FIX = "The log has the details."

PORT_TAKEN = Death(
    kind="port",
    reason="could not listen: its port is taken",
    fix="Set LLAMACPP_PORT to another port, or to 0 for a free one.",
)

_LINES: tuple[tuple[str, Death], ...] = (
    ("couldn't bind HTTP server socket", PORT_TAKEN),
    (
        "error while loading shared libraries",
        Death(kind="library", reason="lacks a shared library", fix=INSTALL),
    ),
    (
        "invalid device",
        Death(
            kind="device",
            reason="does not know the device",
            fix="Set LLAMACPP_USE_VULKAN=auto, or 0 for the CPU alone.",
        ),
    ),
    (
        "error: invalid argument",
        Death(
            kind="flag",
            reason="refused a flag",
            fix="This is a flag its --help names; set LLAMACPP_BINARY_PATH to another build.",
        ),
    ),
    (
        "that cannot run the operation",  # a tensor is larger than any buffer of it
        Death(
            kind="memory",
            reason="has a buffer that is too large for its device",
            fix=_MEMORY_FIX,
        ),
    ),
    (
        "what():  Resource temporarily unavailable",
        Death(
            kind="memory",
            reason="could not start a thread",
            fix="Raise the limits of this shell (ulimit -v, ulimit -u), or lower "
            "LLAMACPP_PARALLEL: each slot takes threads.",
        ),
    ),
    *(
        (line, Death(kind="memory", reason="has not enough memory", fix=_MEMORY_FIX))
        for line in (
            "failed to create_context",
            "failed to create context",
            "unable to allocate",
            "failed to allocate",
            "insufficient memory",
            "ctx->mem_buffer != NULL",
            "Resource temporarily unavailable",  # no room for the stack of one more thread
            "OutOfDeviceMemory",
            "OutOfHostMemory",
            "std::bad_alloc",
            "Cannot allocate memory",
        )
    ),
    (
        "model is corrupted or incomplete",
        Death(
            kind="model",
            reason="found the model file damaged",
            fix="Fetch the file again; a broken download is the usual cause.",
        ),
    ),
    (
        "unknown model architecture",
        Death(
            kind="model",
            reason="does not know the architecture of the model",
            fix="The model is newer than this llama-server; set LLAMACPP_BINARY_PATH to a newer "
            "one, or use another model.",
        ),
    ),
    (
        "failed to load model",
        Death(
            kind="model",
            reason="could not load the model",
            fix="Fetch the file again, or use another model or a newer llama-server.",
        ),
    ),
)
"""Most telling first: a lack of memory is also followed by `failed to load model`."""

_SIGNALS = {
    signal.SIGILL: Death(
        kind="cpu",
        reason="died of SIGILL: it was compiled for a newer CPU than this one",
        fix=INSTALL,
    ),
    signal.SIGXFSZ: Death(
        kind="other",
        reason="died of SIGXFSZ: a file of it became larger than ulimit -f lets it",
        fix="Raise that limit (ulimit -f unlimited).",
    ),
    signal.SIGKILL: Death(
        kind="killed",
        reason="was killed (SIGKILL); the system does that when memory runs out",
        fix=_MEMORY_FIX,
    ),
}


def explain_death(exit_code: int, log: str) -> Death:
    """The cause, from the exit status (negative: the signal) and the end of the log."""
    if exit_code < 0 and -exit_code in _SIGNALS:
        return _SIGNALS[signal.Signals(-exit_code)]
    for line, death in _LINES:
        if line in log:
            return death
    if exit_code < 0:
        reason = f"died of {_signal_name(-exit_code)}"
    else:
        reason = f"ended with exit status {exit_code}"
    return Death(kind="other", reason=reason, fix=_OTHER_FIX)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
