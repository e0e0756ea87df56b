"""Ask a program that may be a llama-server one question, and survive whatever it is.

It may be built for another CPU or a newer system, be something else entirely, print without end or
hang: each is an `Unusable` with the reason, and nothing of it stays behind.
"""

from __future__ import annotations

import errno
import os
import platform
import re
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence

from agent.core.config import server_environment
from agent.core.process_group import die_with_parent, signal_group

_OUTPUT_LIMIT = 1_000_000
"""Bytes; the help of llama-server has 60,000."""

_MACHINES = {3: "i686", 40: "arm", 62: "x86_64", 183: "aarch64", 243: "riscv64"}
"""e_machine of ELF."""

WRONG_CPU = "dies of SIGILL: it was compiled for a newer CPU than this one"

_CANNOT_LOAD = re.compile(
    r"error while loading shared libraries|version `[\w.]+' not found|symbol lookup error"
    r"|FATAL: kernel too old|Library not loaded|Symbol not found|No module named"
)
"""What the loaders of glibc, macOS and Python say when the program itself is in order, but this
system lacks what it needs. They leave nothing but these words: their exit status is 1 or 127."""


class Unusable(Exception):
    """A candidate cannot be used. `foreign`: it runs, but it is no llama-server."""

    def __init__(self, reason: str, *, foreign: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.foreign = foreign


def ask(
    command: Sequence[str], question: str, environment: Mapping[str, str], limit_s: float
) -> str:
    """What `command` prints when it is asked `question` (``--version``), within `limit_s` seconds
    and with `environment` besides that of every server. Raises Unusable."""
    try:
        process = subprocess.Popen(
            [*command, question],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**server_environment(), **environment},
            start_new_session=True,
            preexec_fn=die_with_parent(),  # noqa: PLW1509 - one that hangs must not outlive us
        )
    except OSError as error:
        raise Unusable(_not_executed(command[0], error)) from None
    late = threading.Event()

    def give_up() -> None:
        late.set()
        signal_group(process.pid, signal.SIGKILL)

    timer = threading.Timer(limit_s, give_up)
    timer.start()
    try:
        with process:
            assert process.stdout is not None  # noqa: S101 - it was asked for above
            printed = process.stdout.read(_OUTPUT_LIMIT)
            if len(printed) == _OUTPUT_LIMIT:
                signal_group(process.pid, signal.SIGKILL)
    finally:
        timer.cancel()
        signal_group(process.pid, signal.SIGKILL)
    if late.is_set():
        raise Unusable(f"does not answer {question} within {limit_s:g} s")
    if len(printed) == _OUTPUT_LIMIT:
        raise Unusable(f"answers {question} without end", foreign=True)
    output = printed.decode(errors="replace")
    _judge(question, process.returncode, output)
    return output


def _not_executed(program: str, error: OSError) -> str:
    if error.errno == errno.ENOEXEC:
        made_for = _machine_of(program)
        if made_for and made_for != platform.machine():
            return f"cannot be executed: it is for {made_for}, this is {platform.machine()}"
        return "cannot be executed: it is no program for this system, nor a script with #!"
    if error.errno == errno.ENOENT and os.path.exists(program):  # noqa: PTH110 - it is a text
        return "cannot be executed: its loader or interpreter is missing here"
    return f"cannot be executed: {error.strerror or error}"


def _machine_of(program: str) -> str:
    """The CPU that an ELF file is for, as `platform.machine` names it; empty when unknown."""
    try:
        with open(program, "rb") as file:  # noqa: PTH123 - it is a text
            head = file.read(20)
    except OSError:
        return ""
    known = head[:4] == b"\x7fELF" and len(head) == 20
    return _MACHINES.get(int.from_bytes(head[18:20], "little"), "") if known else ""


def _judge(question: str, code: int, output: str) -> None:
    if code == 0:
        return
    if code == -signal.SIGILL:
        raise Unusable(WRONG_CPU)
    if code < 0:
        named = next((x.name for x in signal.Signals if x == -code), f"signal {-code}")
        raise Unusable(f"{question} dies of {named}")
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    unmet = next((line for line in lines if _CANNOT_LOAD.search(line)), "")
    last = unmet or (lines[-1] if lines else "")
    said = f": {last[:200]}" if last else ""
    raise Unusable(f"{question} exits {code}{said}", foreign=not unmet)
