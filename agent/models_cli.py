"""``turbo models``: fetch a model for this machine, see which are here, and make room again."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from agent.core.config import Settings
    from agent.core.hardware import Hardware
    from agent.core.model_name import ModelName
    from agent.core.model_store import StoredModel

app = typer.Typer(help="The models that do the work.", no_args_is_help=True)

_NAME = "Name of the catalogue (qwen2.5-coder-1.5b), or owner/repository; :QUANTISATION after it."
Name = Annotated[str, typer.Argument(metavar="NAME[:QUANT]", help=_NAME)]


AsJson = Annotated[bool, typer.Option("--json", help="As JSON; sizes are bytes.")]


@app.command("list")
def list_models(as_json: AsJson = False) -> None:
    """List the models that are here, the last used first, and those that can be pulled by name."""
    from datetime import UTC, datetime

    from agent.core.config import models_dir
    from agent.core.model_catalogue import catalogue
    from agent.core.model_remains import remains
    from agent.core.model_room import GIB, gib
    from agent.core.model_store import stored_models
    from agent.stored_view import name_of, stored_as_object

    there, others = stored_models(), remains()
    limit = _settings().model_cache_max_gb
    if as_json:
        models = [stored_as_object(each) for each in (*there, *others)]
        about = {"folder": str(models_dir()), "limit": round(limit * GIB), "models": models}
        typer.echo(json.dumps(about, indent=1))
        return
    for model in (*there, *others):
        used = datetime.fromtimestamp(model.used_at, UTC).astimezone()
        state = "in use" if model.in_use else f"{used:%F %R}"
        what = model.path.name
        if model.unfinished:
            what = "being pulled" if model.in_use else "not whole; a pull of it goes on from there"
        elif model.fault:
            what = f"damaged: {model.fault}"
        typer.echo(f"{name_of(model):<34}  {gib(model.size):>9}  {state:<16}  {what}")
    total = sum(model.size for model in (*there, *others))
    count = "1 model" if len(there) == 1 else f"{len(there)} models"
    typer.echo(f"{count}, {gib(total)} of {gib(round(limit * GIB))}, in {models_dir()}")
    here = {model.record.repository.lower() for model in there}
    known = [entry for entry in catalogue() if entry.repository.lower() not in here]
    if known:
        typer.echo("\nTo be pulled by name (turbo models recommend: which of them fit here):")
    for entry in known:
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
    from agent.core.model_pull import pull as fetch
    from agent.core.model_room import gib
    from agent.core.signals import Interrupted, raise_interrupted
    from agent.download_view import shown
    from agent.stored_view import name_of

    settings = _settings(hf_hub_offline=True if offline else None)
    wanted = _parsed(name)
    try:
        with raise_interrupted():
            done = fetch(wanted, settings, watch=shown, say=_say)
    except Interrupted as stopped:
        _say("What arrived is kept; the same command goes on from there.")
        raise typer.Exit(stopped.exit_code) from None
    state = "is here now" if done.fetched else "is here already"
    typer.echo(f"{name_of(done.model)} ({gib(done.model.size)}) {state}: {done.model.path}")
    if done.fetched:
        _say(f"Use it: turbo run --model {name_of(done.model)}")


@app.command()
def recommend(
    as_json: Annotated[
        bool, typer.Option("--json", help="As a JSON list; sizes are bytes.")
    ] = False,
) -> None:
    """Say which models of the catalogue suit this machine as it is now, the best first."""
    from agent.core.model_advice import advise
    from agent.core.model_catalogue import catalogue
    from agent.core.model_room import gib
    from agent.stored_view import advice_as_object

    settings = _settings()
    hardware = _machine(settings)
    found = advise(catalogue(), hardware, settings)
    if as_json:
        typer.echo(json.dumps([advice_as_object(each) for each in found], indent=1))
        return
    cores = f"{hardware.physical_cores} core{'s' if hardware.physical_cores > 1 else ''}"
    gpus = [f"{x.description} ({gib(x.free)} free)" for x in hardware.devices] or ["no GPU in use"]
    typer.echo(f"{cores}, {gib(hardware.memory_available)} of memory free, {', '.join(gpus)}")
    slots = f"{settings.llamacpp_parallel} slots of {settings.llamacpp_context_size} tokens"
    typer.echo(f"Needs are for {slots}.\n")
    typer.echo(f"{'model':<24}  {'needs':>9}  {'machine':>7}  {'licence':<13}  why")
    for each in found:
        needs = gib(each.needed) if each.needed else "?"
        machine = f"{each.memory_class} GB" if each.memory_class else "?"
        line = f"{each.entry.name:<24}  {needs:>9}  {machine:>7}  {each.entry.licence:<13}"
        typer.echo(f"{line}  {each.why}")
    if found and found[0].verdict == "fits":
        typer.echo(f"\nturbo models pull {found[0].entry.name}")


@app.command("rm")
def remove_model(names: Annotated[list[str], typer.Argument(metavar="NAME[:QUANT]...")]) -> None:
    """Remove models from the cache, also what is damaged or not whole; refused while in use."""
    from agent.core.errors import ModelError
    from agent.core.model_lookup import to_be_changed
    from agent.core.model_room import gib
    from agent.core.model_store import remove
    from agent.stored_view import name_of

    found = [model for name in names for model in to_be_changed(_parsed(name), "rm")]
    for model in {(each.folder, each.name, each.fault): each for each in found}.values():
        if not remove(model):
            raise ModelError(
                model.path,
                "somebody uses it just now",
                fix="End the runs and pulls that use it; for the daemon: turbo server stop.",
            )
        typer.echo(f"{name_of(model)} removed, {gib(model.size)} freed")


@app.command()
def verify(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME[:QUANT]]...", help="Default: all.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compute the digests of the files again and compare them with those that were published."""
    from agent.core.errors import ModelError
    from agent.core.model_lookup import to_be_changed
    from agent.core.model_remains import remains
    from agent.core.model_store import broken_files, stored_models
    from agent.stored_view import name_of, stored_as_object

    if names:
        found = [model for name in names for model in to_be_changed(_parsed(name), "verify")]
    else:
        found = [*stored_models(), *(model for model in remains() if not model.unfinished)]
    bad: list[StoredModel] = []
    rows: list[dict[str, Any]] = []
    for model in {(each.folder, each.name, each.fault): each for each in found}.values():
        fault = model.fault
        if not fault and (broken := broken_files(model)):
            fault = f"differs: {', '.join(x.name for x in broken)}"
        if fault:
            bad.append(model)
        rows.append(stored_as_object(model) | {"fault": fault or None})
        if not as_json:
            typer.echo(f"{name_of(model):<34}  {fault or 'as published'}")
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
    elif not rows:
        typer.echo("0 models to verify.")
    if bad:
        first, name = bad[0], name_of(bad[0])
        if first.unfinished:
            fix = f"Go on with it: turbo models pull {name}"
            raise ModelError(Path(name), "not whole yet", fix=fix)
        raise ModelError(
            first.path,
            "not what was published any more",
            fix=f"Remove it and fetch it again: turbo models rm {name}, turbo models pull {name}.",
        )


@app.command()
def prune(
    max_gb: Annotated[
        float | None,
        typer.Option(min=0, help="GiB that may stay; default: MODEL_CACHE_MAX_GB."),
    ] = None,
) -> None:
    """Remove the least recently used models until the rest is within a limit."""
    from agent.core.errors import UsageError
    from agent.core.model_room import GIB, gib, make_room, occupants

    if max_gb is not None and not math.isfinite(max_gb):
        raise UsageError("--max-gb is to be a number of GiB.", fix="For example: --max-gb 20")
    limit = _settings().model_cache_max_gb if max_gb is None else max_gb
    removed = make_room(round(limit * GIB))
    for entry in removed:
        typer.echo(f"{entry.what} removed, {gib(entry.size)} freed")
    if not removed:
        typer.echo(f"Nothing was removed for a limit of {gib(round(limit * GIB))}.")
    left = occupants()
    if (size := sum(entry.size for entry in left)) > round(limit * GIB):
        using = ", ".join(entry.what for entry in left if not entry.free)
        typer.echo(f"{gib(size)} stay, in use just now: {using or 'nothing any more; try again'}.")


@app.command()
def path(name: Name) -> None:
    """Print the path of a model that is here, for scripts."""
    typer.echo(_stored(name).path)


@app.command()
def info(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A GGUF file, or a model's name.")],
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object; sizes are bytes.")
    ] = False,
) -> None:
    """Print what a model file tells of itself, and the memory that it takes here."""
    from agent.model_view import facts_as_object, facts_of_file

    settings = _settings(llamacpp_model_path=Path(file))
    found = facts_of_file(settings, _machine(settings))
    if as_json:
        typer.echo(json.dumps(facts_as_object(found), indent=1))
        return
    for line in found.lines():
        typer.echo(line)


def _settings(**overrides: object) -> Settings:
    """Those of every other command here: also the turbo.toml of the repository around us."""
    from agent.core.config import load_settings

    here = Path.cwd()
    repository = next((x for x in (here, *here.parents) if (x / ".git").exists()), None)
    return load_settings(repository=repository, overrides=overrides)


def _machine(settings: Settings) -> Hardware:
    """This machine, with the GPUs that the llama-server here finds."""
    import asyncio

    from agent.core.errors import BinaryError
    from agent.core.folders import cache_folder
    from agent.core.hardware import read_hardware, with_devices
    from agent.core.llamacpp_binary import find_binary

    hardware = read_hardware()
    if settings.llamacpp_use_vulkan == "0":
        return hardware
    try:
        binary = find_binary(settings, cache=cache_folder("binaries"))
    except BinaryError:
        return hardware  # a model can be chosen before there is a server
    return asyncio.run(with_devices(hardware, binary, cache=cache_folder("devices")))


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
    from agent.core.model_lookup import to_be_used

    parsed = _parsed(name)
    model = to_be_used(parsed)
    if model is None:
        raise ModelError(
            Path(name), "not in the model cache", fix=f"Fetch it: turbo models pull {parsed}"
        )
    return model


def _say(text: str) -> None:
    typer.echo(text, err=True)
