"""What a run was made of: whoever wants the same answers again must have the same of all this."""

from __future__ import annotations

import json
import platform
from pathlib import Path

import agent
from agent.core.backend_manager import Opened
from agent.core.config import Settings
from agent.core.workspace import Workspace
from agent.team.task_file import Task


def write_manifest(
    folder: Path, task: Task, settings: Settings, opened: Opened, workspace: Workspace
) -> None:
    """Write ``manifest.json`` beside the journal. The journal's ``answered`` events go with it:
    role, seed, and a digest of each prompt and answer."""
    backend = opened.backend
    manifest = {
        "run": workspace.run,
        "base": workspace.base,
        "task": task.model_dump(mode="json"),
        "settings": settings.model_dump(mode="json", exclude={"llamacpp_api_key"}),
        "engine": {"backend": backend.name, "slots": backend.slots, "context": backend.context}
        | dict(opened.engine),
        "versions": {
            "turbo": agent.__version__,
            "python": platform.python_version(),
            "system": platform.platform(),
        },
    }
    text = json.dumps(manifest, indent=1) + "\n"
    (folder / "manifest.json").write_text(text, encoding="utf-8")
