"""How a download is shown: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

_LINE_S = 10.0
"""Between two lines where there is no terminal."""
_MIB = 1 << 20


@contextmanager
def shown(name: str, size: int) -> Iterator[Callable[[int], None]]:
    """Show the download of `size` bytes on standard error; what is yielded gets the size of every
    part."""
    from rich.console import Console  # noqa: PLC0415 - 30 ms that only a download needs

    console = Console(stderr=True)
    showing = _bar(name, size, console) if console.is_terminal else _lines(name, size, console)
    with showing as on_bytes:
        yield on_bytes


@contextmanager
def _bar(name: str, size: int, console: Any) -> Iterator[Callable[[int], None]]:
    from rich.progress import (  # noqa: PLC0415
        BarColumn,
        DownloadColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text  # noqa: PLC0415

    class Speed(ProgressColumn):
        """In MiB, as all our sizes are; the column of the library knows no binary units."""

        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text(f"{speed / _MIB:,.1f} MiB/s" if speed else "?")

    columns: Sequence[Any] = (
        *(TextColumn("{task.description}", markup=False), BarColumn()),
        *(DownloadColumn(binary_units=True), Speed(), TimeRemainingColumn()),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task(name, total=size)
        yield lambda taken: progress.advance(bar, taken)


@contextmanager
def _lines(name: str, size: int, console: Any) -> Iterator[Callable[[int], None]]:
    began = said = time.monotonic()
    done = fetched = 0
    # What was there before comes first and at once: it tells nothing of the speed.
    counting = False

    def on_bytes(taken: int) -> None:
        nonlocal done, fetched, said, counting
        done += taken
        now = time.monotonic()
        if counting:
            fetched += max(0, taken)
        counting = True
        if now - said >= _LINE_S:
            said = now
            console.print(_line(name, done, size, fetched / (now - began)), **_PLAIN)

    yield on_bytes
    seconds = max(time.monotonic() - began, 1e-6)
    text = f"{name}: {done / _MIB:,.1f} MiB in {_clock(seconds)}"
    console.print(text, **_PLAIN)


_PLAIN: dict[str, Any] = {"markup": False, "highlight": False, "soft_wrap": True}


def _line(name: str, done: int, size: int, speed: float) -> str:
    left = _clock((size - done) / speed) if speed > 0 else "?"
    return (
        f"{name}: {done / _MIB:,.1f} of {size / _MIB:,.1f} MiB ({100 * done // max(1, size)}%), "
        f"{speed / _MIB:,.1f} MiB/s, {left} left"
    )


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
