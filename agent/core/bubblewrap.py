"""The command line of bubblewrap for one command. Pure, but for looking which folders exist.

The sandbox begins empty. It gets the system and the toolchains to read, the folder of the command
to write, and a /tmp, a home and a /dev/shm of its own that are gone afterwards. Namespaces of its
own for processes, network and IPC: no other process is seen, nothing but its own loopback reached,
and when the command ends the kernel ends everything that it started.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from agent.core.toolchain_paths import SECRETS, SYSTEM, covers

_FOREIGN = ("TMPDIR", "TEMP", "TMP", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME")
"""Variables that name places outside."""
_KERNEL = ("/proc/sys", "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sysrq-trigger")


def bubblewrap_command(
    program: str,
    argv: Iterable[str],
    *,
    folder: Path,
    home: Path | None,
    readable: Iterable[Path],
    private_bytes: int,
) -> tuple[str, ...]:
    """`argv` in a sandbox in which it may write to `folder` and read `readable`.

    `program` is bubblewrap itself; /tmp, `home` and /dev/shm hold `private_bytes` each.
    """
    size = ("--size", str(private_bytes))
    words = [program, "--unshare-all", "--die-with-parent", "--cap-drop", "ALL"]
    words += _system()
    words += ["--proc", "/proc", *_settings_of_the_kernel()]
    words += ["--dev", "/dev", *size, "--tmpfs", "/dev/shm"]  # noqa: S108
    words += [*size, "--perms", "1777", "--tmpfs", "/tmp", "--symlink", "/tmp", "/var/tmp"]  # noqa: S108
    words += ["--dir", "/run"]
    if home is not None:
        words += [*size, "--tmpfs", str(home)]
    for path in readable:
        if not covers((Path(x) for x in SYSTEM), path):
            words += ["--ro-bind-try", str(path), str(path)]
    words += ["--bind", str(folder), str(folder)]
    # What it says leads our own git to the repository.
    words += ["--ro-bind-try", str(folder / ".git"), str(folder / ".git")]
    words += ["--remount-ro", "/", "--chdir", str(folder)]
    return (*words, "--", *argv)


def inside(environment: Mapping[str, str], home: Path | None) -> dict[str, str]:
    """`environment` without what names places that are not there."""
    kept = {key: value for key, value in environment.items() if key not in _FOREIGN}
    return kept | {"HOME": str(home or "/tmp")}  # noqa: S108 - the sandbox's own


def _settings_of_the_kernel() -> Iterator[str]:
    """They are files of root, and where root starts us the sandbox has root's number, too."""
    for name in _KERNEL:
        if Path(name).exists():
            yield from ("--ro-bind", name, name)


def _system() -> Iterator[str]:
    for name in SYSTEM:
        path = Path(name)
        if path.is_symlink():
            yield from ("--symlink", str(path.readlink()), name)
        elif path.exists():
            yield from ("--ro-bind", name, name)
    for name in SECRETS:
        path = Path(name)
        if path.is_symlink() or not path.exists():
            continue
        yield from ("--tmpfs", name) if path.is_dir() else ("--ro-bind", os.devnull, name)
