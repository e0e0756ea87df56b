"""``turbo server``: the llama-server behind runs."""

from __future__ import annotations

import typer

from agent import daemon_cli

app = typer.Typer(help="The llama-server behind runs.", no_args_is_help=True)
daemon_cli.add_commands(app)
