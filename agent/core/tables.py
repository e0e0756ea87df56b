"""Tables on standard output: as wide as the terminal, and unbroken in a file or a pipe."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console

_UNBROKEN = 100_000
"""Columns that no line of ours has."""


@contextmanager
def table_console() -> Iterator[Console]:
    """A console for standard output; what a file or a pipe gets is written at the end."""
    console = Console(highlight=False, markup=False, emoji=False)
    if console.is_terminal:
        yield console
        return
    console = Console(highlight=False, markup=False, emoji=False, width=_UNBROKEN)
    with console.capture() as captured:
        yield console
    sys.stdout.write("".join(f"{line.rstrip()}\n" for line in captured.get().splitlines()))
    sys.stdout.flush()
