"""Everything live that a node uses, on a fake server and a real repository."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fakes.llama_server import KEY, FakeLlamaServer

from agent.core.config import Settings
from agent.core.journal import Journal
from agent.core.llamacpp_backend import LlamaCppBackend
from agent.core.prompts import PromptBook
from agent.core.sandbox_choice import choose_sandbox
from agent.core.workspace import Workspace
from agent.team.context import TeamContext
from agent.team.secret_files import FileReader

Events = list[tuple[str, Mapping[str, Any]]]


@asynccontextmanager
async def open_team(
    server: FakeLlamaServer,
    repository: Path,
    *,
    shown: Mapping[str, str | None] | None = None,
    events: Events | None = None,
    **settings: Any,
) -> AsyncIterator[TeamContext]:
    seen: Events = events if events is not None else []
    journal = Journal((lambda event, data: seen.append((event, data)),))
    workspace = await Workspace.open(
        repository, run="run", worktrees_root=repository.parent / "worktrees"
    )
    try:
        async with LlamaCppBackend(server.url, api_key=KEY, stall_timeout_s=30) as backend:
            yield TeamContext(
                backend=backend,
                workspace=workspace,
                prompts=PromptBook.load(),
                settings=Settings(**settings),
                journal=journal,
                reader=FileReader(workspace.read),
                repository="REPOSITORY",
                shown=shown or {},
                candidates=1,
                test_slots=asyncio.Semaphore(1),
                sandbox=(await choose_sandbox(Settings(sandbox="off")))[0],
            )
    finally:
        await workspace.close()
