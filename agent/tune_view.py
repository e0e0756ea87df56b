"""What `turbo tune` shows while it measures, and its table at the end."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType

import psutil
from rich.console import Console
from rich.status import Status
from rich.table import Table

from agent.core.daemon_record import daemon_lives
from agent.core.tables import table_console
from agent.core.terminal import printable
from agent.measure.configuration import Configuration
from agent.measure.tune_report import HEAD, HOW, cells, not_tried, rows_of
from agent.measure.tuning import Sample, Tuning


def console_for(*, err: bool) -> Console:
    """A console for lines."""
    return Console(stderr=err, highlight=False, markup=False, emoji=False)


class Progress:
    """A line per measurement on standard error; on a terminal also what is measured now."""

    def __init__(self, budget_s: float) -> None:
        self._console = console_for(err=True)
        self._budget_s = budget_s
        self._began = time.monotonic()
        self._status: Status | None = None

    def __enter__(self) -> Progress:
        if self._console.is_terminal:
            self._status = self._console.status("starting the server")
            self._status.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._status is not None:
            self._status.stop()

    def say(self, line: str) -> None:
        """A line besides those of measurements."""
        self._console.print(printable(line), soft_wrap=True)

    def see(self, name: str, configuration: Configuration, found: Sample | str | None) -> None:
        """See `agent.measure.tuning.Watch`."""
        gone = f"{time.monotonic() - self._began:5.1f} s"
        if found is None:
            if self._status is not None:
                left = f"{gone} of {self._budget_s:g} s"
                self._status.update(f"{left}, {name}: {configuration.label}")
        elif isinstance(found, str):
            self.say(f"{gone}  {configuration.label}: {found}")
        else:
            rates = found.rates
            self.say(
                f"{gone}  {configuration.label}: reads {rates.prefill:,.0f}, writes "
                f"{rates.single:,.0f} alone and {rates.together:,.0f} in {rates.slots} slots "
                f"tokens/s; workflow {found.seconds:.2f} s"
            )


def show(tuning: Tuning, *, err: bool) -> None:
    """The table and the outcome, on standard output or standard error."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for number, name in enumerate(HEAD):
        justify = "right" if 0 < number < len(HEAD) - 1 else "left"
        table.add_column(name, justify=justify, overflow="fold")  # type: ignore[arg-type]
    for row in rows_of(tuning):
        won = tuning.improved and row.configuration == tuning.winner
        style = "bold green" if won else "dim" if row.rates is None else None
        table.add_row(*cells(row), style=style)
    with table_console(err=err) as console:
        console.print(table)
        console.print(HOW, soft_wrap=True)
        show_not_tried(not_tried(tuning), console)
        console.print(
            f"Measured in {tuning.took_s:.0f} s; others took {tuning.others:.1f} cores meanwhile."
        )
        console.print(tuning.why, soft_wrap=True)


def show_not_tried(reasons: Mapping[str, str], console: Console) -> None:
    """What is not tried, and why."""
    for name, why in reasons.items():
        console.print(f"{name}: not tried, {why}", soft_wrap=True)


def busy() -> list[str]:
    """Why the figures may be off: who else uses the machine."""
    lines = []
    if daemon_lives():
        lines.append(
            "A daemon runs here. It disturbs the measurement when it is used meanwhile, and takes "
            "new flags only after turbo server restart."
        )
    cores = psutil.cpu_count() or 1
    taken = psutil.cpu_percent(interval=0.3) / 100 * cores
    if taken > cores / 10:
        lines.append(
            f"Others take {taken:.1f} of {cores} cores at the moment; figures will be off."
        )
    return lines
