"""``turbo bench``: how fast a model is here, by the product's own requests."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from agent.bench_options import Places
    from agent.core.config import Settings
    from agent.measure.bench import Asked, Size
    from agent.measure.bench_report import Report


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
        str | None, typer.Option(help="A task file to run whole, instead of the demo.")
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
    markdown: Annotated[
        Path | None, typer.Option(help="Write a report as Markdown; - as above.")
    ] = None,
    csv: Annotated[
        Path | None, typer.Option(help="Write every single value as CSV; - as above.")
    ] = None,
) -> None:
    """Measure time to the first token, reading, writing, caching, memory and a whole run.

    Figures are medians of --repeat rounds with the least and the greatest value.
    """
    from agent.bench_options import Places, backends_of, check_places, task_file_of, too_long
    from agent.core.config import load_settings
    from agent.core.determinism import with_tier
    from agent.core.errors import ContextTooSmall, UsageError
    from agent.core.signals import Interrupted
    from agent.measure.bench import Asked, Size

    wanted = Places(json=json, markdown=markdown, csv=csv)
    if shape is not None and (model or compare or task):
        raise UsageError(
            "--shape measures a made-up model on llama.cpp, without --model, --compare and --task."
        )
    if shape is None and (layers or keep):
        raise UsageError("--layers and --keep belong to --shape.")
    if task is not None and requests_only:
        raise UsageError("--task is what --requests-only leaves out; give one of them.")
    sides = backends_of(compare)
    task_file = task_file_of(task)
    check_places(wanted)
    here = Path.cwd()
    repository = next((x for x in (here, *here.parents) if (x / ".git").exists()), None)
    overrides = {"llamacpp_model_path": model}
    settings, given_way = with_tier(load_settings(repository=repository, overrides=overrides))
    for line in given_way:
        _say(line)
    size = Size(repeat=repeat, prompt=prompt_tokens, answer=answer_tokens)
    context = settings.llamacpp_context_size
    if settings.backend == "llamacpp" and not settings.llamacpp_url and answer_tokens >= context:
        raise too_long(answer_tokens, context, needed=answer_tokens + prompt_tokens)
    try:
        if shape is not None:
            report = _of_shape(settings, size, shape, layers, keep=keep)
        else:
            asked = [
                Asked(name=name, settings=settings.model_copy(update={"backend": name}))
                for name in sides or [settings.backend]
            ]
            report = _of_model(asked, size, task_file, whole_runs=not requests_only)
    except Interrupted as stopped:
        _say("Interrupted; nothing is reported.")
        raise typer.Exit(stopped.exit_code) from None
    except ContextTooSmall as small:
        raise too_long(answer_tokens, small.context, needed=small.prompt + small.answer) from None
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
    from agent.core.folders import cache_folder
    from agent.core.llamacpp_binary import find_binary
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
    find_binary(settings, cache=cache_folder("binaries"))  # before gigabytes are written
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


def _write(report: Report, wanted: Places) -> None:
    from agent.core.errors import UsageError

    if not wanted.on_output:
        _show(report)
    for path, text in (
        (wanted.json, report.json),
        (wanted.markdown, report.markdown),
        (wanted.csv, report.csv),
    ):
        if path in wanted.on_output:
            typer.echo(text(), nl=False)
        elif path is not None:
            try:
                path.write_text(text(), encoding="utf-8")
            except OSError as error:
                raise UsageError(
                    f"{path} cannot be written: {error.strerror or error}",
                    fix="Make room there, or name another file.",
                ) from None


def _show(report: Report) -> None:
    from rich.table import Table

    from agent.core.tables import table_console
    from agent.core.terminal import printable

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for number, head in enumerate(report.heads):
        table.add_column(head, justify="left" if number < 2 else "right")
    for row in report.rows():
        table.add_row(*map(printable, row))
    with table_console() as console:
        for line in ([report.title] if report.title else []) + report.facts():
            console.print(printable(line))
        console.print()
        console.print(table)
        for note in report.bench.notes:
            console.print(printable(f"\n{note}"))


def _say(line: str) -> None:
    from agent.core.terminal import printable

    sys.stderr.write(f"{printable(line)}\n")


def _command() -> str:
    return shlex.join(["turbo", *sys.argv[1:]])
