"""Options that several commands have, in the same words."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Repo = Annotated[
    Path | None, typer.Option(help="The repository; default: the one around this folder.")
]
RunName = Annotated[str, typer.Argument(help="Name of a run, its beginning, or last.")]
AsEvents = Annotated[
    bool, typer.Option("--json", help="One JSON object per event on standard output.")
]
AsObject = Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")]
AsList = Annotated[bool, typer.Option("--json", help="As a JSON list.")]
Verbose = Annotated[bool, typer.Option("-v", "--verbose", help="Show every event.")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Show only the outcome.")]
