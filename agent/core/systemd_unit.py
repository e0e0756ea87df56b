"""The systemd user unit of the daemon, as text. Pure.

What it may do is kept small, as far as a GPU driver lives with it. MemoryDenyWriteExecute is not
set: drivers compile shaders into memory that they then execute (Mesa's llvmpipe does, for one). The
file system is read-only but for the cache; for a user's unit, systemd needs user namespaces to do
that, and where the kernel forbids them the unit fails with 226/NAMESPACE.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

NAME = "turbo-local-coder.service"

_UNIT = """\
# Written by `turbo server install-service`; it is overwritten by the next one.
[Unit]
Description=Turbo Local Coder: one llama-server for all runs
StartLimitIntervalSec=300
StartLimitBurst=5

[Service]
Type=exec
ExecStart={command}
WorkingDirectory={folder}
{environment}Restart=on-failure
RestartSec=5
# Wrong settings do not mend themselves.
RestartPreventExitStatus=2
TimeoutStopSec=30
NoNewPrivileges=yes
PrivateTmp=yes
ProtectSystem=strict
ReadWritePaths={writable}
LockPersonality=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RestrictNamespaces=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
SystemCallArchitectures=native
UMask=0077

[Install]
WantedBy=default.target
"""


def unit_text(command: Sequence[str], environment: Mapping[str, str], cache: Path) -> str:
    """A unit that runs `command`, which may write to the folder `cache`.

    Raises ValueError for a word with a line break, which a unit cannot hold.
    """
    words = (_quoted(word, command_line=True) for word in command)
    lines = (f"Environment={_quoted(f'{name}={value}')}\n" for name, value in environment.items())
    return _UNIT.format(
        command=" ".join(words),
        environment="".join(lines),
        folder=_plain(str(cache)),  # the rest of the line, whatever it holds
        writable=_quoted(str(cache)),
    )


def _quoted(word: str, *, command_line: bool = False) -> str:
    """One word for systemd: quotes, its own specifiers (%), and variables on a command line ($)."""
    text = _plain(word).replace("\\", "\\\\").replace('"', '\\"')
    return '"' + (text.replace("$", "$$") if command_line else text) + '"'


def _plain(word: str) -> str:
    if any(ord(x) < 32 for x in word):
        raise ValueError(f"{word!r} cannot be written into a systemd unit")
    return word.replace("%", "%%")
