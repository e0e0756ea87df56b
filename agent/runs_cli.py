"""``turbo runs``: what became of runs, going on with one that was killed, and room again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agent.in_session import in_session
from agent.options import AsEvents, AsList, AsObject, Quiet, Repo, RunName, Verbose

if TYPE_CHECKING:
    from agent.core.journal import Journal
    from agent.team.report import Reporter
    from agent.team.result import Ledger
    from agent.team.run_list import RunSummary

app = typer.Typer(help="Earlier runs of a repository.", no_args_is_help=True)


@app.command("list")
def list_all(
    repo: Repo = None,
    as_json: AsList = False,
) -> None:
    """List the runs, the newest first."""
    from agent.team.run_list import list_runs

    found = list_runs(_runs(repo))
    if as_json:
        typer.echo(json.dumps([each.as_object() for each in found]))
        return
    for each in found:
        typer.echo(_line(each))
    waiting = sum(each.resumable for each in found)
    go_on = "; turbo runs resume goes on with the newest of them" if waiting else ""
    typer.echo(f"{_count(found)}, {waiting} unfinished{go_on}")


@app.command()
def show(
    run: RunName,
    repo: Repo = None,
    as_json: AsObject = False,
) -> None:
    """Show the plan of a run, its candidates and reviews, what it cost, and where it is kept."""
    from agent.core.terminal import printable, quoted
    from agent.team.plain_view import describe
    from agent.team.replay import find_run
    from agent.team.run_list import RunSummary
    from agent.team.runs import JOURNAL

    folder = find_run(_runs(repo), run)
    summary = RunSummary.of(folder)
    if as_json:
        typer.echo(json.dumps({**summary.details(), "journal": str(folder / JOURNAL)}))
        return
    told = [_line(summary)]
    told += quoted(summary.reason)
    events = [("plan_ready", summary.plan)] if summary.plan else []
    events += [("candidate_verified", each) for each in summary.candidates.values()]
    events += [("review_ready", each) for each in summary.reviews]
    told += [describe(event, data) or "" for event, data in events]
    tokens = summary.tokens
    told.append(
        f"tokens: {tokens['prompt']} prompt = {tokens['computed']} computed + "
        f"{tokens['cached']} cached; {tokens['predicted']} predicted"
    )
    if summary.commit:
        told.append(f"commit {summary.commit}")
    told.append(f"journal {folder / JOURNAL}")
    if summary.resumable:
        told.append(f"unfinished: turbo runs resume {summary.run}")
    for text in told:
        typer.echo(printable(text))


@app.command()
def resume(
    run: Annotated[
        str | None,
        typer.Argument(help="Name of a run or its beginning; default: the newest unfinished one."),
    ] = None,
    repo: Repo = None,
    as_json: AsEvents = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Go on with a run that was killed or interrupted, as it was begun.

    What the model answered already is not asked again. Exit codes are those of turbo run; 2 when
    the run cannot go on, 0 when there is none that could.
    """

    def work(reporter: Reporter, journal: Journal, ledger: Ledger) -> int:
        from agent.team.session import run_resume

        run_resume(run, repo, journal, ledger)
        return reporter.end_session(ledger)

    in_session(work, as_json=as_json, verbose=verbose, quiet=quiet)


@app.command()
def discard(run: RunName, repo: Repo = None) -> None:
    """Remove a run: its journal, its checkpoint and what it left behind. A branch stays."""
    import asyncio

    from agent.team import forgetting

    gone = asyncio.run(forgetting.discard(_repository(repo), run))
    kept = f"; its commit stays on {gone.branch}" if gone.branch else ""
    typer.echo(f"run {gone.run} ({gone.status}) removed{kept}")


@app.command()
def clean(
    repo: Repo = None,
    unfinished: Annotated[
        bool, typer.Option("--all", help="Also unfinished runs, however young.")
    ] = False,
    branches: Annotated[
        bool,
        typer.Option("--branches", help="Also branches turbo/* merged into the current branch."),
    ] = False,
) -> None:
    """Remove runs that are over, and unfinished ones of more than two weeks ago.

    Branches stay, unless asked for; runs that a process carries out now stay in any case.
    """
    import asyncio

    from agent.team import forgetting

    done = asyncio.run(
        forgetting.clean(_repository(repo), unfinished=unfinished, merged_branches=branches)
    )
    typer.echo(f"{_count(done.removed)} removed")
    if done.kept:
        typer.echo(f"kept: {', '.join(done.kept)}")
    for branch in done.deleted:
        typer.echo(f"branch {branch} deleted")
    if done.branches:
        several = "1 branch turbo/* is" if len(done.branches) == 1 else ""
        several = several or f"{len(done.branches)} branches turbo/* are"
        typer.echo(
            f"{several} there; --branches deletes what is merged, git branch -D NAME any of them"
        )


def _repository(repo: Path | None) -> Path:
    from agent.core.workspace import locate

    return locate(repo or Path.cwd())


def _runs(repo: Path | None) -> Path:
    from agent.core.workspace import state_folder

    return state_folder(_repository(repo)) / "runs"


def _line(each: RunSummary) -> str:
    from agent.core.terminal import one_line, printable

    when = f"{datetime.fromtimestamp(each.started, UTC).astimezone():%F %R}" if each.started else ""
    status = f"{each.status}*" if each.resumable else each.status
    facts = f"{each.run:20}  {when:16}  {status:12}  {each.wall_s:7.1f} s"
    branch = f"  {one_line(each.branch)}" if each.branch else ""
    return f"{printable(facts)}  {one_line(each.task)}{branch}"


def _count(runs: Sequence[object]) -> str:
    return "1 run" if len(runs) == 1 else f"{len(runs)} runs"
