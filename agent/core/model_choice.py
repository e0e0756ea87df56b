"""Which file the settings mean by their model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from agent.core.config import Settings, embedded_model
from agent.core.errors import ModelError
from agent.core.model_name import ModelName, name_in

if TYPE_CHECKING:
    from agent.core.hardware import Hardware


def chosen_model(settings: Settings) -> Path:
    """The model file of LLAMACPP_MODEL_PATH or --model, be it a path or a name; the embedded one
    when none is set.

    Nothing is fetched: gigabytes are not for a command that did not say so. Raises ModelError that
    names the command that fetches it, for a name whose model is not here.
    """
    asked = settings.llamacpp_model_path
    if asked is None:
        return embedded_model()
    name = name_in(asked)
    return _stored(name) if name else asked.expanduser().absolute()


def _stored(name: ModelName) -> Path:
    # A run on the daemon with a path needs none of this.
    from agent.core.gguf_info import available_models  # noqa: PLC0415
    from agent.core.model_catalogue import (  # noqa: PLC0415
        find_entry,
        nearest,
    )
    from agent.core.model_lookup import to_be_used  # noqa: PLC0415

    path = Path(str(name))
    if not name.is_repository and find_entry(name) is None:
        raise ModelError(
            path,
            "no such file, and no such name in the catalogue of models",
            available=available_models(Path.cwd()),
            fix=nearest(name.name),
        )
    model = to_be_used(name)
    if model is None:
        raise ModelError(
            path,
            "not in the model cache, and no such file",
            available=available_models(Path.cwd()),
            fix=f"Fetch it: turbo models pull {name}",
        )
    return model.path


def embedded_notice(hardware: Hardware, settings: Settings) -> str:
    """What to say when no model is set: that the embedded one runs, and what gets a better one."""
    from agent.core.model_advice import best_fitting  # noqa: PLC0415
    from agent.core.model_catalogue import catalogue  # noqa: PLC0415
    from agent.core.model_store import find_stored  # noqa: PLC0415

    said = "No model set: the small embedded one runs; it demonstrates the machinery. For work: "
    best = best_fitting(catalogue(), hardware, settings)
    if best is None:
        return f"{said}turbo models recommend."
    if find_stored(best.repository, best.quantisation):
        return f"{said}--model {best.name}"
    return f"{said}turbo models pull {best.name}, then --model {best.name}"
