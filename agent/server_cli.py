"""``turbo server``: which llama-server serves here, what it would be told, and fetching one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agent import daemon_cli
from agent.core.llamacpp_release import Variant
from agent.options import AsList, AsObject

if TYPE_CHECKING:
    from agent.core.config import Settings
    from agent.core.llamacpp_binary import Binary, Examined

app = typer.Typer(help="The llama-server that runs the model.", no_args_is_help=True)
daemon_cli.add_commands(app)


@app.command()
def install(
    variant: Annotated[
        Variant | None, typer.Option(help="What it computes with; default: what fits this machine.")
    ] = None,
    tag: Annotated[
        str | None, typer.Option(help="A release of llama.cpp, as b9828; default: the latest.")
    ] = None,
) -> None:
    """Fetch an official release of llama.cpp, check it and keep it if it runs here."""
    from agent.core.config import load_settings
    from agent.core.llamacpp_install import install as fetch
    from agent.core.signals import Interrupted, raise_interrupted
    from agent.download_view import shown

    settings = load_settings()
    try:
        with raise_interrupted():
            done = fetch(settings, variant=variant, tag=tag, watch=shown)
    except Interrupted as stopped:
        raise typer.Exit(stopped.exit_code) from None
    release = done.release
    state = "is installed" if done.fetched else "is installed already"
    typer.echo(f"llama.cpp {release.tag} ({release.variant}) {state}: {release.program}")
    for line in _advice(settings, release.program, release.variant):
        typer.echo(line, err=True)


@app.command()
def uninstall(
    release: Annotated[str, typer.Argument(help="As `turbo server binaries` names it: b9828-cpu.")],
) -> None:
    """Remove a release that `turbo server install` fetched."""
    from agent.core.llamacpp_uninstall import uninstall as remove

    removed = remove(release)
    typer.echo(f"llama.cpp {removed.tag} ({removed.variant}) is removed: {removed.folder}")


@app.command()
def plan(
    model: Annotated[
        Path | None, typer.Option(help="A GGUF model file, or a model's name.")
    ] = None,
    as_json: AsObject = False,
) -> None:
    """Show what would be started here: every flag with its reason, and the memory it takes."""
    import asyncio
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
    notes = [*prepared.notes, *made.notes]
    if settings.backend == "ollama" or settings.llamacpp_url is not None:
        other = "BACKEND=ollama" if settings.backend == "ollama" else "LLAMACPP_URL is set"
        notes.append(f"{other}: a run would use that server and start none.")
    for note in notes:
        sys.stderr.write(f"{printable(note)}\n")


@app.command()
def binaries(
    as_json: AsList = False,
) -> None:
    """List every llama-server in the order in which they are tried, and what is wrong with it.

    A run takes the first that works.
    """
    from agent.core.config import load_settings
    from agent.core.folders import cache_folder
    from agent.core.llamacpp_binary import choose, examine

    found = list(examine(load_settings(), cache=cache_folder("binaries")))
    rows = [_row(each) for each in found]
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
    else:
        for row in rows:
            typer.echo(_line(row))
    choose(found)


def _row(each: Examined) -> dict[str, Any]:
    from agent.core.llamacpp_devices import find_devices
    from agent.core.llamacpp_installed import installed_releases

    binary, path = each.binary, each.candidate.path
    return {
        "origin": each.candidate.origin,
        "release": next((x.name for x in installed_releases() if x.program == path), ""),
        "command": list(each.candidate.command),
        "runs": binary is not None,
        "reason": each.reason,
        "version": binary.version if binary else "",
        "commit": binary.commit if binary else "",
        "devices": [
            {"name": x.name, "description": x.description, "memory": x.memory, "free": x.free}
            for x in (find_devices(binary) if binary else ())
        ],
    }


def _line(row: dict[str, Any]) -> str:
    from agent.core.terminal import printable

    release = f" {row['release']}" if row["release"] else ""
    if row["runs"]:
        devices = ", ".join(f"{x['name']} ({x['description']})" for x in row["devices"])
        about = f"{row['version']} {row['commit']}".strip() or "of unknown version"
        about = f"{about}, {devices or 'CPU only'}"
    else:
        about = f"set aside: {row['reason']}"
    command = " ".join(row["command"])
    return printable(f"{row['origin']}{release}\n    {command}\n    {about}")


def _advice(settings: Settings, program: Path, variant: str) -> Iterator[str]:
    """What the user should know about a release that is installed."""
    from agent.core.folders import cache_folder
    from agent.core.llamacpp_binary import examine
    from agent.core.llamacpp_devices import find_devices

    first: Binary | None = None
    for each in examine(settings, cache=cache_folder("binaries")):
        first = first or each.binary
        if each.binary is not None and each.candidate.path == program:
            if variant != "cpu" and not find_devices(each.binary):
                yield f"It finds no {variant} device (is the driver installed?) and uses the CPU."
            break
    if first is not None and first.path != program:
        yield f"A run takes {first.path}, which comes first. To use this one:"
        yield f"export LLAMACPP_BINARY_PATH={program}"
