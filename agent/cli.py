"""The `turbo` command: it parses, calls and renders, and imports what a command needs only then."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

import agent
from agent import bench_cli, doctor_cli, models_cli, prefixes_cli, runs_cli, server_cli, tune_cli
from agent.core.errors import TurboError, UsageError
from agent.in_session import Reported, in_session
from agent.options import AsEvents, Quiet, Repo, RunName, Verbose

if TYPE_CHECKING:
    from agent.core.journal import Journal
    from agent.team.report import Reporter
    from agent.team.result import Ledger

app = typer.Typer(
    name="turbo",
    help="A team of agents that turns a task file into a tested, reviewed commit, offline.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(models_cli.app, name="models")
app.add_typer(prefixes_cli.app, name="prefixes")
app.add_typer(server_cli.app, name="server")
app.add_typer(runs_cli.app, name="runs")
app.command()(doctor_cli.doctor)
app.command()(bench_cli.bench)
app.command()(tune_cli.tune)


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        typer.echo(f"turbo {agent.__version__}")
        raise typer.Exit


@app.command()
def run(
    tasks: Annotated[
        list[str] | None, typer.Argument(help="Task files; - reads standard input.")
    ] = None,
    task: Annotated[str | None, typer.Option("--task", help="A task in prose.")] = None,
    all_tasks: Annotated[
        bool, typer.Option("--all", help="Every tasks/*.md that is not done yet.")
    ] = False,
    repo: Repo = None,
    model: Annotated[
        Path | None, typer.Option(help="A GGUF model file, or the name of a model that was pulled.")
    ] = None,
    candidates: Annotated[
        int | None, typer.Option(min=1, max=32, help="Answers per step, at the same time.")
    ] = None,
    test: Annotated[str | None, typer.Option(help="The test command; default: detected.")] = None,
    determinism: Annotated[
        Literal["strict", "stable", "fast"] | None,
        typer.Option(help="How much an answer may vary.", case_sensitive=False),
    ] = None,
    apply: Annotated[
        bool, typer.Option("--apply", help="Fast-forward the current branch when it is clean.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Stop after the plan.")] = False,
    as_json: AsEvents = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Turn tasks into commits. Without a task: the demo, in a temporary repository."""

    def work(reporter: Reporter, journal: Journal, ledger: Ledger) -> int:
        from agent.team.session import Invocation, run_session

        if bool(tasks) + (task is not None) + all_tasks > 1:
            raise UsageError("Give task files, --task or --all, not several of them.")
        invocation = Invocation(
            tasks=tasks or (),
            prose=task,
            all_tasks=all_tasks,
            repository=repo,
            model=model,
            candidates=candidates,
            test=test,
            determinism=determinism,
            apply=apply,
            dry_run=dry_run,
        )
        run_session(invocation, journal, ledger)
        return reporter.end_session(ledger)

    in_session(work, as_json=as_json, verbose=verbose, quiet=quiet)


@app.command()
def replay(
    run: RunName,
    repo: Repo = None,
    as_json: AsEvents = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Run a run again from its manifest and name the first difference. Makes no branch."""

    def work(reporter: Reporter, journal: Journal, ledger: Ledger) -> int:
        from agent.team.session import run_replay

        compared = run_replay(run, repo, journal, ledger)
        return reporter.end_replay(ledger, compared)

    in_session(work, as_json=as_json, verbose=verbose, quiet=quiet)


@app.command()
def graph() -> None:
    """Print the graph of a run as Mermaid."""
    from agent.team.graph import build_graph

    typer.echo(build_graph(4).get_graph().draw_mermaid())


def console(arguments: Sequence[str] | None = None) -> int:
    """`main` for a process that ends with it: a thread that was blocked when a signal came, in a
    read that never returns, does not keep it alive."""
    code = main(arguments)
    from agent.core.signals import ignore_ending_signals, leave_blocked_threads

    ignore_ending_signals()
    if code >= 128:
        leave_blocked_threads(code)
    return code


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code. Expected failures print no traceback.

    0 every task accepted, 1 one rejected or failed, 2 wrong usage, 3 model or server; after a
    signal 128 + its number: 129 SIGHUP, 130 SIGINT (Ctrl-C), 143 SIGTERM.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    _print_whatever_there_is()
    return _exit_code(words)


def _exit_code(words: list[str]) -> int:
    try:
        app(args=words, prog_name="turbo")
    except Reported as end:
        return end.exit_code
    except SystemExit as end:
        code = _cause_of(end) or (end.code if isinstance(end.code, int) else 1)
    except OSError as error:
        from agent.core.shortage import shortage

        lacking = shortage(error, Path("standard output"))
        if lacking is None:
            raise
        _give_up_output()
        sys.stderr.write(f"turbo: {lacking.message}\n{lacking.fix}\n")
        code = lacking.exit_code
    except KeyboardInterrupt:
        code = 130
    except TurboError as error:
        from agent.core.config import secret_values
        from agent.core.redaction import Redactor

        sys.stderr.write(f"turbo: {Redactor(secret_values()).text(str(error))}\n")
        code = error.exit_code
    else:
        code = 0
    session = words[:1] in (["run"], ["replay"]) or words[:2] == ["runs", "resume"]
    if code and session and "--json" in words:
        _close_events(code)
    return code


def _cause_of(end: SystemExit) -> int:
    """The exit code of what made typer end us with its own; 0 when that was nothing of this."""
    from agent.core.signals import Interrupted

    cause = end.__context__
    while cause is not None:
        if isinstance(cause, Interrupted):
            return cause.exit_code
        if isinstance(cause, BrokenPipeError):
            return 128 + signal.SIGPIPE
        cause = cause.__context__
    return 0


def _print_whatever_there_is() -> None:
    """A terminal or pipe that is no UTF-8 gets escapes for what it cannot show."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")


def _give_up_output() -> None:
    """Standard output cannot be written: the interpreter is not to try what is left once more."""
    with (
        contextlib.suppress(OSError, io.UnsupportedOperation),
        Path(os.devnull).open("wb") as nowhere,
    ):
        os.dup2(nowhere.fileno(), sys.stdout.fileno())


def _close_events(code: int) -> None:
    """Write the last event of a run that ended before it began, for want of right options."""
    from agent.team.report import write_event
    from agent.team.result import RunResult

    reason = "" if code >= 128 else "wrong usage; standard error says more"
    status: Literal["failed", "interrupted"] = "interrupted" if code >= 128 else "failed"
    with contextlib.suppress(BrokenPipeError):  # the reader has gone; typer has ended us for that
        write_event("run_finished", RunResult(status=status, exit_code=code, reason=reason).event())
