"""Tables on standard output or error: as wide as the terminal, and unbroken in a file or a pipe."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console

_UNBROKEN = 100_000
"""Columns that no line of ours has."""


@contextmanager
def table_console(*, err: bool = False) -> Iterator[Console]:
    """A console for standard output, or for standard error; what a file or a pipe gets is written
    at the end."""
    console = Console(stderr=err, highlight=False, markup=False, emoji=False)
    if console.is_terminal:
        yield console
        return
    console = Console(highlight=False, markup=False, emoji=False, width=_UNBROKEN)
    with console.capture() as captured:
        yield console
    stream = sys.stderr if err else sys.stdout
    stream.write("".join(f"{line.rstrip()}\n" for line in captured.get().splitlines()))
    stream.flush()
