"""What a llama-server is asked for, as two programs can compare it.

What is compared is the wish, not the command line that came of it: that depends on the memory that
is free at the time, of which a daemon that runs takes a good part.
"""

from __future__ import annotations

from collections.abc import Mapping

from agent.core.config import Settings
from agent.core.folders import cache_folder
from agent.core.known_models import facts_of
from agent.core.llamacpp_binary import find_binary
from agent.core.model_choice import chosen_model
from agent.core.model_digest import model_digest

_OWN = "llamacpp_"
_WITHOUT_EFFECT = frozenset(
    {
        *("llamacpp_url", "llamacpp_api_key", "llamacpp_port", "llamacpp_start_timeout_s"),
        *("llamacpp_model_path", "llamacpp_binary_path"),  # what they lead to is compared
    }
)
"""A setting that is not listed counts, so that a new one can only cost a server of its own."""
_MODEL, _BINARY = "model", "llama-server"
_DIGEST, _BUILD = "content of the model", "build of llama-server"


def wish_of(settings: Settings) -> dict[str, str]:
    """Everything that shapes a server, by the name under which the user knows it.

    Takes seconds for a large model that was never used before. Raises ModelError or BinaryError.
    """
    model = chosen_model(settings)
    # What is no model has no digest worth waiting for.
    facts_of(model, cache_folder("models-known"))
    binary = find_binary(settings, cache=cache_folder("binaries"))
    shaping = {
        name.upper(): str(value)
        for name, value in settings.model_dump(mode="json").items()
        if name.startswith(_OWN) and name not in _WITHOUT_EFFECT
    }
    return {
        _MODEL: str(model),
        _DIGEST: model_digest(model, cache_folder("digests")),
        _BINARY: str(binary.path),
        _BUILD: binary.stamp,
        **shaping,
    }


def differences(theirs: Mapping[str, str], ours: Mapping[str, str]) -> list[str]:
    """What the daemon has that we do not ask for, a clause each; empty when it will do."""
    found: list[str] = []
    for name in dict.fromkeys((*ours, *theirs)):
        if theirs.get(name) == ours.get(name):
            continue
        if name in (_DIGEST, _BUILD):
            if not found:
                found.append(f"the {name} has changed since")
        elif name == _MODEL:
            # The same model under another name will do.
            if theirs.get(_DIGEST) != ours.get(_DIGEST):
                found.append(f"it serves {theirs.get(name)}, not {ours.get(name)}")
        else:
            found.append(f"{name} is {theirs.get(name)} there and {ours.get(name)} here")
    return found
