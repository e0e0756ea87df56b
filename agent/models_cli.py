"""``turbo models``: fetch a model for this machine, see which are here, and make room again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from agent.core.model_name import ModelName
    from agent.core.model_store import StoredModel

app = typer.Typer(help="The models that do the work.", no_args_is_help=True)

_NAME = "Name of the catalogue (qwen2.5-coder-1.5b), or owner/repository; :QUANTISATION after it."
Name = Annotated[str, typer.Argument(metavar="NAME[:QUANT]", help=_NAME)]


@app.command("list")
def list_models() -> None:
    """List the models that are here, the last used first, and those that can be pulled by name."""
    from datetime import UTC, datetime

    from agent.core.config import load_settings, models_dir
    from agent.core.model_catalogue import catalogue
    from agent.core.model_room import GIB, gib
    from agent.core.model_store import stored_models

    there = stored_models()
    for model in there:
        used = datetime.fromtimestamp(model.used_at, UTC).astimezone()
        state = "in use" if model.in_use else f"{used:%F %R}"
        typer.echo(f"{_name_of(model):<34}  {gib(model.size):>9}  {state:<16}  {model.path.name}")
    total, limit = sum(model.size for model in there), load_settings().model_cache_max_gb
    count = "1 model" if len(there) == 1 else f"{len(there)} models"
    typer.echo(f"{count}, {gib(total)} of {gib(round(limit * GIB))}, in {models_dir()}")
    here = {model.record.repository.lower() for model in there}
    others = [entry for entry in catalogue() if entry.repository.lower() not in here]
    if others:
        typer.echo("\nTo be pulled by name (turbo models recommend: which of them fit here):")
    for entry in others:
        size = gib(entry.size) if entry.size else "?"
        typer.echo(f"{entry.name:<34}  {size:>9}  {entry.licence:<16}  {entry.note}")


@app.command()
def pull(
    name: Name,
    offline: Annotated[
        bool, typer.Option("--offline", help="Ask no network: an error when it is not here.")
    ] = False,
) -> None:
    """Fetch a model, check its SHA-256 digest, and keep it; an interrupted pull goes on later."""
    from agent.core.config import load_settings
    from agent.core.model_pull import pull as fetch
    from agent.core.model_room import gib
    from agent.core.signals import Interrupted, raise_interrupted
    from agent.download_view import shown

    settings = load_settings(overrides={"hf_hub_offline": True if offline else None})
    wanted = _parsed(name)
    try:
        with raise_interrupted():
            done = fetch(wanted, settings, watch=shown, say=_say)
    except Interrupted as stopped:
        _say("What arrived is kept; the same command goes on from there.")
        raise typer.Exit(stopped.exit_code) from None
    state = "is here now" if done.fetched else "is here already"
    typer.echo(f"{_name_of(done.model)} ({gib(done.model.size)}) {state}: {done.model.path}")
    if done.fetched:
        _say(f"Use it: turbo run --model {_name_of(done.model)}")


@app.command()
def path(name: Name) -> None:
    """Print the path of a model that is here, for scripts."""
    typer.echo(_stored(name).path)


def _parsed(name: str) -> ModelName:
    from agent.core.errors import UsageError
    from agent.core.model_name import parse_name

    parsed = parse_name(name)
    if parsed is None:
        raise UsageError(
            f"{name} is no name of a model.",
            fix="Names look like qwen2.5-coder-1.5b, qwen2.5-coder-1.5b:Q8_0 or "
            "owner/repository:Q4_K_M.",
        )
    return parsed


def _stored(name: str) -> StoredModel:
    """A model that is here, by its name."""
    from agent.core.errors import ModelError
    from agent.core.model_catalogue import repository_of, usual_of
    from agent.core.model_store import find_stored

    parsed = _parsed(name)
    model = find_stored(repository_of(parsed), parsed.wanted, usual_of(parsed))
    if model is None:
        raise ModelError(
            Path(name), "not in the model cache", fix=f"Fetch it: turbo models pull {parsed}"
        )
    return model


def _name_of(model: StoredModel) -> str:
    """The shortest name that leads to it."""
    from agent.core.model_catalogue import catalogue

    for entry in catalogue():
        if entry.repository.lower() == model.record.repository.lower():
            if entry.quantisation == model.record.quantisation:
                return entry.name
            return f"{entry.name}:{model.record.quantisation or model.name}"
    return model.asked_as


def _say(text: str) -> None:
    typer.echo(text, err=True)


def _all_or(names: Sequence[str]) -> list[StoredModel]:
    from agent.core.model_store import stored_models

    return [_stored(name) for name in names] if names else stored_models()
