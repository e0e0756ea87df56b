"""How the commands of a run are confined: in bubblewrap, or by limits alone."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.core.bubblewrap import bubblewrap_command, inside
from agent.core.command_limits import Limits
from agent.core.toolchain_paths import tool_root, toolchain_paths


@dataclass(frozen=True, kw_only=True)
class Sandbox:
    """What a command may reach and take."""

    limits: Limits
    bubblewrap: str | None = None
    """The program; None: commands run with the user's rights, and only the limits hold."""
    readable: tuple[Path, ...] = ()
    """Named by the settings, besides system and toolchains."""
    home: Path | None = None
    """The user's, which is empty inside; None: there is none to hide."""

    def confine(
        self, argv: Sequence[str], *, folder: Path, environment: Mapping[str, str]
    ) -> tuple[tuple[str, ...], dict[str, str]]:
        """What is to be run instead of `argv`, and its environment. It may write to `folder`."""
        if self.bubblewrap is None:
            return tuple(argv), dict(environment)
        home = self.home or Path(os.devnull)
        own = shutil.which(argv[0], path=environment.get("PATH"))
        words = bubblewrap_command(
            self.bubblewrap,
            argv,
            folder=folder,
            home=self.home,
            readable=(
                *toolchain_paths(environment, home),
                *(tool_root(Path(own).parent, home) if own else ()),
                *self.readable,
            ),
            private_bytes=self.limits.file_size,
        )
        return words, inside(environment, self.home)
