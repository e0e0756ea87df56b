"""Determinism tiers: what each of them makes of the settings.

========  =========================================================================================
strict    one request at a time on one slot, nothing kept from the last one, no speculation: the
          same build, model, flags and threads give the same bytes
stable    every request pinned to a slot, every seed fixed; what a slot still holds, and what is
          decoded beside it, moves logits by about 1e-4, which now and then turns a token
fast      stable, and whatever else saves time
========  =========================================================================================

The tiers are those of ``llama_server_facts.md`` rule 9.
"""

from __future__ import annotations

from typing import Any

from agent.core.config import Settings

_STRICT: dict[str, Any] = {
    "llamacpp_parallel": 1,
    "llamacpp_speculation": "off",
    "prefix_bank_max_mb": 0,
    "turbo_overlap": "off",
}
_FAST: dict[str, Any] = {"llamacpp_speculation": "ngram", "turbo_overlap": "on"}


def with_tier(settings: Settings) -> tuple[Settings, list[str]]:
    """The settings as TURBO_DETERMINISM has them, and a line per wish of the user that gave way.

    `strict` is stronger than what it needs to be set; `fast` only turns on what nobody has set.
    """
    if settings.turbo_determinism == "strict":
        changed = {k: v for k, v in _STRICT.items() if getattr(settings, k) != v}
        wished = sorted(changed.keys() & settings.model_fields_set)
        lines = [
            f"TURBO_DETERMINISM=strict: {name.upper()} is {changed[name]} instead of "
            f"{getattr(settings, name)}."
            for name in wished
        ]
        return settings.model_copy(update=changed), lines
    if settings.turbo_determinism == "fast":
        unset = {k: v for k, v in _FAST.items() if k not in settings.model_fields_set}
        return settings.model_copy(update=unset), []
    return settings, []
