"""Where the user's compilers, interpreters and packages lie, which commands must be able to read.

The system's folders are named as a whole. Of the user's home only what well-known installers put
there is named, and what PATH and the usual variables point at; never a folder that could hold keys.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from agent.core.regular_file import read_regular

SYSTEM = (
    *("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc", "/opt"),
    *("/nix/store", "/gnu/store", "/run/current-system", "/snap"),
    *("/sys/devices/system/cpu", "/sys/fs/cgroup", "/var/lib/alternatives"),
)
"""What programs need of the system to run at all."""

SECRETS = (
    *("/etc/shadow", "/etc/shadow-", "/etc/gshadow", "/etc/gshadow-", "/etc/sudoers"),
    *("/etc/sudoers.d", "/etc/ssh", "/etc/ssl/private", "/etc/NetworkManager", "/etc/wireguard"),
    *("/etc/docker", "/etc/kubernetes", "/etc/krb5.keytab"),
)
"""What of the system holds keys; root could read it."""

_OF_HOME = (
    *(".pyenv", ".asdf", ".rustup", ".nvm", ".volta", ".fnm", ".sdkman", ".deno", ".bun", ".rye"),
    *(".cargo/bin", ".cargo/registry", ".cargo/git", ".cargo/env", "go/bin", "go/pkg"),
    *(".m2/repository", ".gradle/caches", ".gradle/wrapper", ".ivy2/cache", ".cabal", ".ghcup"),
    *(".local/bin", ".local/lib", ".local/pipx", ".local/share/pipx", ".local/share/uv"),
    *(".local/share/mise", ".local/share/fnm", ".local/share/pnpm", ".local/share/virtualenvs"),
    *(".conda", "miniconda3", "anaconda3", "miniforge3", "mambaforge", "micromamba"),
)
_VARIABLES = (
    *("VIRTUAL_ENV", "CONDA_PREFIX", "RUSTUP_HOME", "GOROOT", "GOMODCACHE", "NODE_PATH"),
    *("NVM_DIR", "JAVA_HOME", "LD_LIBRARY_PATH"),
)
PYTHONS = ("python3", "python", "python.exe")
_BINARY_FOLDERS = {"bin", "sbin", "shims", "scripts"}


def toolchain_paths(environment: Mapping[str, str], home: Path) -> tuple[Path, ...]:
    """Existing folders outside of the system's that `environment` and `home` point at."""
    found: list[Path] = []
    for name in ("PATH", *_VARIABLES):
        for each in filter(None, environment.get(name, "").split(os.pathsep)):
            found += tool_root(Path(each), home)
    if cargo := environment.get("CARGO_HOME"):
        found += [Path(cargo, part) for part in ("bin", "registry", "git")]
    found += [home / part for part in _OF_HOME]
    return tuple(dict.fromkeys(path for path in found if _fit(path, home)))


def tool_root(folder: Path, home: Path) -> Iterator[Path]:
    """What must be readable for the programs of `folder`: the installation around it, and that of
    the interpreter which a virtual environment was made from."""
    # Both spellings: a program is started by the one and finds its libraries by the other.
    for spelling in dict.fromkeys((folder, folder.resolve())):
        root = _around(spelling, home)
        yield root
        yield from _base_of(root, home)


def _around(folder: Path, home: Path) -> Path:
    if folder.name.lower() not in _BINARY_FOLDERS:
        return folder
    above = folder.parent
    shared = {home / ".local", home / ".cargo", home / "go"}
    holds_more = above in shared or _holds(above, home) or (above / ".git").exists()
    return folder if holds_more else above


def _base_of(environment: Path, home: Path) -> Iterator[Path]:
    try:
        text = read_regular(environment / "pyvenv.cfg").decode("utf-8")
    except (OSError, UnicodeDecodeError):
        return
    if "\0" in text:  # no path
        return
    for line in text.splitlines():
        key, _, value = line.partition("=")
        if key.strip() == "home" and value.strip():
            base = Path(value.strip())
            # A clone may bring such a file, and name any folder: only one of an interpreter counts.
            if not any((base / name).is_file() for name in PYTHONS):
                continue
            for spelling in dict.fromkeys((base, base.resolve())):
                yield _around(spelling, home)


def _fit(path: Path, home: Path) -> bool:
    """A folder of its own, not one that all of the home or of the system lies below."""
    return path.is_absolute() and path.exists() and not _holds(path, home) and len(path.parts) > 1


def _holds(path: Path, home: Path) -> bool:
    return home == path or path in home.parents


def covers(folders: Iterable[Path], path: Path) -> bool:
    """Whether `path` lies in one of `folders`."""
    return any(path == folder or folder in path.parents for folder in folders)
