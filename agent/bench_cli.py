"""``turbo bench``: how fast a model is here, by the product's own requests."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from agent.core.config import Settings
    from agent.measure.bench import Asked, Size
    from agent.measure.bench_report import Report

_WIDTH_OF_A_PIPE = 160
_BACKENDS = ("llamacpp", "ollama")


@dataclass(frozen=True, kw_only=True)
class _Wanted:
    """Where the report goes besides the terminal."""

    json: Path | None
    markdown: Path | None
    csv: Path | None

    @property
    def files(self) -> list[Path]:
        """Those that are files."""
        return [x for x in (self.json, self.markdown, self.csv) if x and str(x) != "-"]


def bench(
    model: Annotated[
        Path | None, typer.Option(help="A GGUF file, or a name of `turbo models list`.")
    ] = None,
    shape: Annotated[
        str | None,
        typer.Option(help="A model that is not there: random weights, as NAME or NAME:QUANT."),
    ] = None,
    layers: Annotated[
        str | None,
        typer.Option(help="With --shape: all, or the two numbers to extrapolate from, as 4,8."),
    ] = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="With --shape: keep the model file for the next time.")
    ] = False,
    compare: Annotated[
        str | None, typer.Option(help="Backends that do the same work in turn: llamacpp,ollama.")
    ] = None,
    task: Annotated[
        Path | None, typer.Option(help="A task file to run whole, instead of the demo.")
    ] = None,
    requests_only: Annotated[
        bool, typer.Option("--requests-only", help="No whole runs of a task.")
    ] = False,
    repeat: Annotated[int, typer.Option(min=1, max=100, help="Rounds of each side.")] = 3,
    prompt_tokens: Annotated[
        int, typer.Option(min=1, help="Prompt tokens that all requests of a repository share.")
    ] = 1800,
    answer_tokens: Annotated[int, typer.Option(min=8, help="Most tokens of an answer.")] = 64,
    json: Annotated[
        Path | None, typer.Option(help="Write the figures as JSON; - is standard output.")
    ] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write a report as Markdown.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Write every single value as CSV.")] = None,
) -> None:
    """Measure time to the first token, reading, writing, caching, memory and a whole run.

    Figures are medians of --repeat rounds with the least and the greatest value.
    """
    from agent.core.config import load_settings
    from agent.core.determinism import with_tier
    from agent.core.errors import UsageError
    from agent.core.signals import Interrupted
    from agent.measure.bench import Asked, Size

    wanted = _Wanted(json=json, markdown=markdown, csv=csv)
    if shape is not None and (model or compare or task):
        raise UsageError(
            "--shape measures a made-up model on llama.cpp, without --model, --compare and --task."
        )
    if shape is None and (layers or keep):
        raise UsageError("--layers and --keep belong to --shape.")
    if task is not None and requests_only:
        raise UsageError("--task is what --requests-only leaves out; give one of them.")
    sides = _sides(compare)
    _check_writable(wanted.files)
    here = Path.cwd()
    repository = next((x for x in (here, *here.parents) if (x / ".git").exists()), None)
    overrides = {"llamacpp_model_path": model}
    settings, given_way = with_tier(load_settings(repository=repository, overrides=overrides))
    for line in given_way:
        _say(line)
    size = Size(repeat=repeat, prompt=prompt_tokens, answer=answer_tokens)
    try:
        if shape is not None:
            report = _of_shape(settings, size, shape, layers, keep=keep)
        else:
            asked = [
                Asked(name=name, settings=settings.model_copy(update={"backend": name}))
                for name in sides or [settings.backend]
            ]
            report = _of_model(asked, size, task, whole_runs=not requests_only)
    except Interrupted as stopped:
        raise typer.Exit(stopped.exit_code) from None
    _write(report, wanted)


def _of_model(sides: Sequence[Asked], size: Size, task: Path | None, *, whole_runs: bool) -> Report:
    from agent.core.gguf_info import read_gguf
    from agent.core.model_choice import chosen_model
    from agent.core.signals import raise_interrupted, run_until_signal
    from agent.measure.bench import run_bench
    from agent.measure.bench_report import Report, this_machine
    from agent.measure.bench_run import runner_for

    for each in sides:
        if each.settings.backend == "llamacpp" and each.settings.llamacpp_url is None:
            read_gguf(chosen_model(each.settings))  # says what is wrong before anything is measured
    with ExitStack() as stack:
        runner = None
        if whole_runs:
            with raise_interrupted():
                runner = stack.enter_context(runner_for(task))
        measured = run_until_signal(run_bench(sides, size, _say, runner=runner))
    return Report(bench=measured, machine=this_machine(), command=_command())


def _of_shape(
    settings: Settings, size: Size, name: str, layers: str | None, *, keep: bool
) -> Report:
    from agent.core.signals import raise_interrupted, run_until_signal
    from agent.measure.bench import Asked, run_bench
    from agent.measure.bench_report import Report, this_machine
    from agent.measure.bench_shape import (
        bench_of_whole,
        extrapolated_keys,
        shape_files,
        wish_of,
    )

    wish = wish_of(name, layers)
    _say(wish.title)
    with ExitStack() as stack:
        with raise_interrupted():
            files = stack.enter_context(shape_files(wish, keep=keep, watch=_writing))
        sides = [
            Asked(
                name="llamacpp" if wish.whole else f"{count} layers",
                settings=settings.model_copy(
                    update={"backend": "llamacpp", "llamacpp_url": None, "llamacpp_model_path": x}
                ),
            )
            for count, x in zip(wish.layers, files, strict=True)
        ]
        measured = run_until_signal(run_bench(sides, size, _say))
        if keep:
            for path in files:
                _say(f"kept: {path}")
    bench = bench_of_whole(measured, wish)
    words = {} if wish.whole else dict.fromkeys(extrapolated_keys(bench), wish.words)
    return Report(
        bench=bench, machine=this_machine(), command=_command(), title=wish.title, words=words
    )


def _writing(name: str) -> Callable[[int, int], None]:
    """A line on standard error that grows with the file; one at the end where that is no
    terminal."""
    begun = time.monotonic()

    def show(done: int, whole: int) -> None:
        taken = time.monotonic() - begun
        left = f", {taken * (whole - done) / done:.0f} s left" if done < whole else ""
        line = f"writing {name}: {done / 1e6:,.0f} of {whole / 1e6:,.0f} MB{left}"
        if sys.stderr.isatty():
            sys.stderr.write(f"\r\x1b[K{line}" + ("" if done < whole else "\n"))
            sys.stderr.flush()
        elif done == whole:
            _say(line)

    return show


def _sides(compare: str | None) -> list[str]:
    """The backends of --compare, none when it is not given. Raises UsageError."""
    import difflib

    from agent.core.errors import UsageError

    if compare is None:
        return []
    names = [name.strip().lower() for name in compare.split(",")]
    for name in names:
        if name not in _BACKENDS:
            near = difflib.get_close_matches(name, _BACKENDS, n=1)
            raise UsageError(
                f"--compare: {name or 'nothing'} is no backend.",
                fix=f"Did you mean {near[0]}?" if near else f"There are {', '.join(_BACKENDS)}.",
            )
    if len(set(names)) < max(2, len(names)):
        raise UsageError(
            "--compare takes two different backends.", fix="As in --compare llamacpp,ollama"
        )
    return names


def _check_writable(files: Sequence[Path]) -> None:
    """Raise UsageError when one of them could not be written at the end."""
    from agent.core.errors import UsageError

    for path in files:
        there = path.exists()
        try:
            with path.open("a", encoding="utf-8"):
                pass
            if not there:
                path.unlink()
        except OSError as error:
            raise UsageError(
                f"{path} cannot be written: {error.strerror or error}",
                fix="Name a file in a folder that exists and is yours.",
            ) from None


def _write(report: Report, wanted: _Wanted) -> None:
    if str(wanted.json) == "-":
        typer.echo(report.json(), nl=False)
    else:
        _show(report)
    for path, text in (
        (wanted.json, report.json),
        (wanted.markdown, report.markdown),
        (wanted.csv, report.csv),
    ):
        if path is not None and str(path) != "-":
            path.write_text(text(), encoding="utf-8")


def _show(report: Report) -> None:
    from rich.console import Console
    from rich.table import Table

    from agent.core.terminal import printable

    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console = Console(highlight=False, markup=False, emoji=False, width=_WIDTH_OF_A_PIPE)
    for line in ([report.title] if report.title else []) + report.facts():
        console.print(printable(line))
    console.print()
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for number, head in enumerate(report.heads):
        table.add_column(head, justify="left" if number < 2 else "right")
    for row in report.rows():
        table.add_row(*map(printable, row))
    console.print(table)
    for note in report.bench.notes:
        console.print(printable(f"\n{note}"))


def _say(line: str) -> None:
    from agent.core.terminal import printable

    sys.stderr.write(f"{printable(line)}\n")


def _command() -> str:
    return shlex.join(["turbo", *sys.argv[1:]])
