"""Models of the cache and of the catalogue as `turbo models` names and lists them."""

from __future__ import annotations

from typing import Any

from agent.core.model_advice import Advice
from agent.core.model_catalogue import catalogue
from agent.core.model_store import StoredModel


def name_of(model: StoredModel) -> str:
    """The shortest name that leads to it."""
    for entry in catalogue():
        if entry.repository.lower() == model.record.repository.lower():
            if entry.quantisation == model.record.quantisation:
                return entry.name
            return f"{entry.name}:{model.record.quantisation or model.name}"
    return model.asked_as


def stored_as_object(model: StoredModel) -> dict[str, Any]:
    """Something in the cache, for programs."""
    return {
        "name": name_of(model),
        "repository": model.record.repository,
        "quantisation": model.record.quantisation or None,
        "licence": model.record.licence or None,
        "path": str(model.path),
        "size": model.size,
        "used_at": model.used_at,
        "in_use": model.in_use,
        "whole": not model.fault,
        "fault": model.fault or None,
    }


def advice_as_object(advice: Advice) -> dict[str, Any]:
    """What is to be said of a model of the catalogue, for programs."""
    entry = advice.entry
    return {
        "name": entry.name,
        "repository": entry.repository,
        "quantisation": entry.quantisation,
        "licence": entry.licence,
        "size": entry.size,
        "needed": advice.needed,
        "memory_class_gb": advice.memory_class,
        "verdict": advice.verdict,
        "why": advice.why,
    }
