"""``turbo server``: the llama-server that a run would start."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="The llama-server behind a run.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keeps ``plan`` a command of its own while it is the only one."""


@app.command()
def plan(
    model: Annotated[Path | None, typer.Option(help="A GGUF model file.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object on standard output.")
    ] = False,
) -> None:
    """Show what would be started here: every flag with its reason, and the memory it takes."""
    import asyncio
    import json
    import sys

    from agent.core.config import load_settings
    from agent.core.server_launching import prepare, slot_folder
    from agent.core.terminal import printable
    from agent.plan_view import plan_as_object, show_plan

    here = Path.cwd()
    repository = next((x for x in (here, *here.parents) if (x / ".git").exists()), None)
    settings = load_settings(repository=repository, overrides={"llamacpp_model_path": model})
    prepared = asyncio.run(prepare(settings))
    made = prepared.plan(
        port=settings.llamacpp_port, slot_dir=slot_folder(settings), api_key_file=Path("KEY_FILE")
    )
    if as_json:
        typer.echo(json.dumps(plan_as_object(prepared, made), indent=2))
        return
    show_plan(prepared, made)
    for note in (*prepared.notes, *made.notes):
        sys.stderr.write(f"{printable(note)}\n")
