"""Which value each engine setting gets, and who said so.

Strongest first: what the user has set, what was measured on this machine, what the profile asks
for, the default. A default of ``auto`` counts as not set, so that a copy of .env.example leaves the
choice to the profile.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from agent.core.config import ProfileName, Settings
from agent.core.gguf_info import GgufInfo
from agent.core.profiles import wishes

_TINY_PARAMETERS = 20_000_000
_TINY_BYTES = 30_000_000
"""Below either, one thread beats several (rule 23), and a GPU costs more than it gives."""

Origin = Literal["default", "profile", "tuned", "setting", "memory", "refused"]
"""Who decided about a flag. `memory`: it was lowered to fit; `refused`: the binary lacks it."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A value and where it comes from."""

    value: Any
    """None: nobody chose, so that the default of llama-server holds."""
    origin: Origin
    source: str = ""
    """The variable or the profile."""
    why: str = ""
    """Reason of the profile."""


class Choices:
    """The engine settings of one launch.

    `tuned` holds values that were measured on this machine, by the names of the settings.
    """

    def __init__(self, settings: Settings, tuned: Mapping[str, object] | None = None) -> None:
        self.settings = settings
        self.profile: ProfileName = settings.llamacpp_profile
        self._tuned = tuned or {}

    def of(self, field: str) -> Choice:
        """The choice for the setting `field`."""
        value = getattr(self.settings, field)
        if self.is_set(field):
            return Choice(value=value, origin="setting", source=field.upper())
        if field in self._tuned:
            return Choice(
                value=self._tuned[field], origin="tuned", why="the fastest measured on this machine"
            )
        if wish := wishes(self.profile).get(field):
            return Choice(value=wish.value, origin="profile", source=self.profile, why=wish.why)
        return Choice(value=value, origin="default")

    def is_set(self, field: str) -> bool:
        """Whether the user has set `field` to something."""
        value = getattr(self.settings, field)
        if value is None or value == "auto" == Settings.model_fields[field].default:
            return False
        return field in self.settings.model_fields_set


def is_tiny(info: GgufInfo) -> bool:
    """Too small for threads and devices to be worth their price."""
    return info.parameters < _TINY_PARAMETERS or info.file_size < _TINY_BYTES


def uses_devices(choices: Choices, info: GgufInfo) -> bool:
    """Whether the server may look for a GPU."""
    vulkan = choices.of("llamacpp_use_vulkan").value
    layers = choices.of("llamacpp_n_gpu_layers").value
    return vulkan != "0" and not (vulkan == layers == "auto" and is_tiny(info))
