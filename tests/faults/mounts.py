"""File systems that are small or read-only, in a mount namespace that ends with the test.

A process holds the namespace; commands enter it, and this process sees it through /proc. When the
test is killed, the kernel ends the holder, and with it every mount.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.core.process_group import die_with_parent


class Mounts:
    """Use `mounts`."""

    def __init__(self, holder: int) -> None:
        self._enter = ["nsenter", f"--target={holder}", "--mount"]
        if os.getuid() != 0:
            self._enter += ["--user", "--preserve-credentials"]
        self._root = Path(f"/proc/{holder}/root")

    def inside(self, folder: Path, *words: str | Path) -> list[str]:
        """The command that runs `words` in `folder` as it is there."""
        return [*self._enter, "sh", "-c", 'cd "$0" && exec "$@"', *map(str, (folder, *words))]

    def do(self, *words: str | Path) -> None:
        subprocess.run(self.inside(Path("/"), *words), check=True, capture_output=True)

    def seen(self, path: Path) -> Path:
        """What is there at `path`."""
        return self._root / path.relative_to("/")

    def small(self, folder: Path, size: int) -> None:
        """An own disk of `size` bytes with what `folder` holds."""
        aside = folder.with_name(f"{folder.name}.before")
        self.do("cp", "-a", folder, aside)
        self.do("mount", "-t", "tmpfs", "-o", f"size={size},mode=0755", "none", folder)
        self.do("cp", "-a", f"{aside}/.", folder)
        shutil.rmtree(aside)

    def read_only(self, folder: Path) -> None:
        self.do("mount", "--bind", folder, folder)
        self.do("mount", "-o", "remount,bind,ro", folder)

    def fill(self, folder: Path) -> Path:
        """Leave no room on the disk of `folder`; the file to remove for room again."""
        filler = self.seen(folder) / "filler"
        with filler.open("wb", buffering=0) as file:
            while True:
                try:
                    file.write(bytes(1 << 12))
                except OSError:
                    return filler


@contextmanager
def mounts() -> Iterator[Mounts]:
    """A namespace of one's own; the test is skipped where there are none."""
    words = ["unshare", "--mount", "--propagation", "private"]
    if os.getuid() != 0:
        words += ["--user", "--map-root-user"]
    if not (shutil.which("unshare") and shutil.which("nsenter")):
        pytest.skip("unshare and nsenter (util-linux) are not there")
    with subprocess.Popen(
        [*words, "sh", "-c", "mount -t tmpfs none /mnt && echo ready && exec sleep 1000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={"PATH": os.defpath},
        preexec_fn=die_with_parent(),  # noqa: PLW1509 - nothing may outlive a test that is killed
        text=True,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stderr is not None
        try:
            if holder.stdout.readline() != "ready\n":
                pytest.skip(f"no mounts here: {holder.stderr.read().strip()}")
            yield Mounts(holder.pid)
        finally:
            holder.kill()
