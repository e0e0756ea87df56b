"""The `turbo` command: it parses, calls and renders, and imports what a command needs only then."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

import agent
from agent.core.errors import TurboError, UsageError

app = typer.Typer(
    name="turbo",
    help="A team of agents that turns a task file into a tested, reviewed commit, offline.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


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
    repo: Annotated[
        Path | None, typer.Option(help="The repository; default: the one around this folder.")
    ] = None,
    model: Annotated[Path | None, typer.Option(help="A GGUF model file.")] = None,
    candidates: Annotated[
        int | None, typer.Option(min=1, max=32, help="Answers per step, at the same time.")
    ] = None,
    test: Annotated[str | None, typer.Option(help="The test command; default: detected.")] = None,
    apply: Annotated[
        bool, typer.Option("--apply", help="Fast-forward the current branch when it is clean.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Stop after the plan.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object per event on standard output.")
    ] = False,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Show every event.")] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Show only the outcome.")] = False,
) -> None:
    """Turn tasks into commits. Without a task: the demo, in a temporary repository."""
    from agent.core.journal import Journal
    from agent.team.report import Reporter
    from agent.team.result import overall_exit_code
    from agent.team.session import Interrupted, Invocation, run_session

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
        apply=apply,
        dry_run=dry_run,
    )
    with Reporter.for_terminal(as_json=as_json, verbose=verbose, quiet=quiet) as reporter:
        try:
            results = run_session(invocation, Journal((reporter.on_event,)))
        except TurboError as error:
            reporter.show_error(error)
            raise typer.Exit(error.exit_code) from None
        except Interrupted as interrupted:
            reporter.show_interrupted()
            raise typer.Exit(interrupted.exit_code) from None
        reporter.show_results(results)
    raise typer.Exit(overall_exit_code(results))


@app.command()
def graph() -> None:
    """Print the graph of a run as Mermaid."""
    from agent.team.graph import build_graph

    typer.echo(build_graph(4).get_graph().draw_mermaid())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code. Expected failures print no traceback."""
    try:
        app(args=list(arguments) if arguments is not None else None, prog_name="turbo")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    except KeyboardInterrupt:
        return 130
    except TurboError as error:
        sys.stderr.write(f"turbo: {error}\n")
        return error.exit_code
    return 0
