"""Which sandbox a run has: bubblewrap where it works, and what is said where it does not."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from agent.core.bubblewrap import bubblewrap_command
from agent.core.command import run_command
from agent.core.command_limits import Limits
from agent.core.config import Settings, environment_for
from agent.core.errors import CommandError, SandboxError
from agent.core.folders import private_folder
from agent.core.sandbox import Sandbox
from agent.core.toolchain_paths import SYSTEM, covers

_PROBE_S = 10.0
_INSTALL = "Install bubblewrap (Linux), or run turbo in a container or a virtual machine."
_ALLOW = (
    "Allow unprivileged user namespaces (sysctl kernel.unprivileged_userns_clone=1, on Ubuntu "
    "kernel.apparmor_restrict_unprivileged_userns=0), or run turbo in a virtual machine."
)


@dataclass(frozen=True, kw_only=True)
class Bubblewrap:
    """Whether bubblewrap can be used here."""

    program: str | None
    reason: str = ""
    """Why not."""
    fix: str = ""


async def find_bubblewrap() -> Bubblewrap:
    """Look for bubblewrap and try whether it may do its work."""
    program = shutil.which("bwrap")
    if program is None:
        return Bubblewrap(program=None, reason="bubblewrap is not installed", fix=_INSTALL)
    with private_folder() as folder:
        words = bubblewrap_command(
            program, ("true",), folder=folder, home=_home(), readable=(), private_bytes=1 << 20
        )
        try:
            result = await run_command(words, cwd=folder, timeout_s=_PROBE_S, env=environment_for())
        except CommandError as error:
            return Bubblewrap(program=None, reason=error.message, fix=error.fix)
    if result.ok:
        return Bubblewrap(program=program)
    lines = result.output.strip().splitlines()
    said = lines[-1] if lines else f"exit status {result.exit_code}"
    return Bubblewrap(program=None, reason=f"bubblewrap does not work here ({said})", fix=_ALLOW)


async def choose_sandbox(settings: Settings) -> tuple[Sandbox, str]:
    """The sandbox that the settings ask for, and a line to say when commands are not isolated.

    Raises SandboxError when isolation is required and cannot be had.
    """
    limits = Limits(
        memory=settings.sandbox_memory_mb << 20,
        processes=settings.sandbox_processes,
        file_size=settings.sandbox_file_mb << 20,
        disk=settings.sandbox_disk_mb << 20,
        cpu_s=settings.sandbox_cpu_s,
    )
    if settings.sandbox == "off":
        return Sandbox(limits=limits), "SANDBOX=off: commands run with your rights, in limits."
    found = await find_bubblewrap()
    if found.program is None:
        if settings.sandbox != "auto":
            raise SandboxError(f"SANDBOX={settings.sandbox}, but {found.reason}.", fix=found.fix)
        return Sandbox(limits=limits), (
            f"NO SANDBOX: {found.reason}. Test commands run code that a model wrote with your "
            f"rights. {found.fix}"
        )
    readable = tuple(path.expanduser().absolute() for path in settings.sandbox_read)
    sandbox = Sandbox(limits=limits, bubblewrap=found.program, readable=readable, home=_home())
    return sandbox, ""


def _home() -> Path | None:
    """The user's home; None when there is none or it is a folder of the system."""
    try:
        home = Path.home()
    except RuntimeError:
        return None
    system = covers((Path(name) for name in SYSTEM), home) or home == Path(home.anchor)
    return home if home.is_dir() and not system else None
