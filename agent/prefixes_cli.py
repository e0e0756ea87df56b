"""``turbo prefixes``: what is saved, and room again."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated

import typer

app = typer.Typer(help="Prompt prefixes that are kept on disk.", no_args_is_help=True)


@app.command("list")
def list_prefixes() -> None:
    """List the saved prefixes, the last used first."""
    from agent.core.folders import cache_folder
    from agent.core.prefix_bank import saved_prefixes
    from agent.core.terminal import printable

    folder = cache_folder("prefixes", private=True)
    entries = saved_prefixes(folder)
    for entry in entries:
        used = datetime.fromtimestamp(entry.used_at, UTC).astimezone()
        line = f"{entry.name[:12]}  {entry.tokens:>7} tokens  {_mib(entry.size)}  {used:%F %R}"
        typer.echo(f"{line}  {printable(entry.model)}")
    total = _mib(sum(entry.size for entry in entries)).strip()
    typer.echo(f"{_count(entries)}, {total}, in {folder}")


@app.command()
def prune(
    max_mb: Annotated[
        int, typer.Option(min=0, help="MiB that may stay; the least used go first.")
    ] = 0,
) -> None:
    """Remove saved prefixes; the next run computes what it needs again."""
    from agent.core.folders import cache_folder
    from agent.core.prefix_bank import prune as prune_folder

    removed = prune_folder(cache_folder("prefixes", private=True), max_mb << 20)
    freed = _mib(sum(entry.size for entry in removed)).strip()
    typer.echo(f"{_count(removed)} removed, {freed} freed")


def _count(entries: Sequence[object]) -> str:
    return "1 prefix" if len(entries) == 1 else f"{len(entries)} prefixes"


def _mib(size: int) -> str:
    return f"{size / (1 << 20):8.1f} MiB"
