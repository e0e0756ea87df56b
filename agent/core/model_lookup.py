"""Which of the models in the cache a name means; nothing is guessed where several can be meant."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from agent.core.errors import ModelError
from agent.core.model_catalogue import repository_of, usual_of
from agent.core.model_name import ModelName
from agent.core.model_remains import remains
from agent.core.model_store import StoredModel, named, stored_models


def to_be_used(name: ModelName) -> StoredModel | None:
    """The whole model that a name means: without a quantisation the one that a pull fetches, else
    the only one that is here. None when there is none.

    Raises ModelError when several can be meant, and when what is here is no whole model any more.
    """
    repository, usual = repository_of(name), usual_of(name)
    found = named(stored_models(), repository, name.wanted, usual)
    if len(found) > 1:
        raise _several(name, found, "Name one of them: --model")
    if found:
        return found[0]
    for model in named(remains(), repository, name.wanted or usual, usual):
        if not model.unfinished:
            raise ModelError(
                Path(str(name)),
                f"damaged in the model cache: {model.fault}",
                fix=f"Fetch it again: turbo models pull {name}",
            )
    return None


def to_be_changed(name: ModelName, verb: str) -> list[StoredModel]:
    """What a name means for `turbo models VERB`: a model, and what else is left under its name.

    Raises ModelError when nothing is here, and when the name has no quantisation and others are
    here than the one that it stands for.
    """
    repository, usual = repository_of(name), usual_of(name)
    everything = [*stored_models(), *remains()]
    found = named(everything, repository, name.wanted, usual)
    if not found:
        raise ModelError(
            Path(str(name)),
            "not in the model cache",
            fix="`turbo models list` shows what is here.",
        )
    here = {each.name: each for each in everything if each.is_of(repository)}
    meant = {each.name: each for each in found}
    unsure = not name.wanted and (len(here) > 1 or not next(iter(here.values())).is_called(usual))
    if len(meant) > 1 or unsure:
        among = here if unsure else meant
        raise _several(name, list(among.values()), f"Name it: turbo models {verb}")
    return found


def _several(name: ModelName, found: Sequence[StoredModel], fix: str) -> ModelError:
    kinds = [each.record.quantisation for each in found]
    names = []
    for each, kind in zip(found, kinds, strict=True):
        alone = kind and kinds.count(kind) == 1
        names.append(f"{name.name}:{kind if alone else each.name}")
    count = "another than the usual one is" if len(names) == 1 else "several are"
    reason = f"{count} in the model cache: {', '.join(sorted(names))}"
    return ModelError(Path(str(name)), reason, fix=f"{fix} {min(names)}")
