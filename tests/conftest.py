"""What all tests share: a cache and a configuration of their own, and one real llama-server."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import hypothesis
import pytest
import pytest_asyncio
from servers import RealServer

from agent.core import llamacpp_candidates
from agent.core.config import Settings

# On a busy machine an example may take long, and nothing of a run is to stay behind.
hypothesis.settings.register_profile("here", deadline=None, database=None)
hypothesis.settings.load_profile("here")


@pytest.fixture(scope="session", autouse=True)
def own_folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Nothing is read from or written to the folders of whoever runs the tests."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("CACHE", "CONFIG", "DATA", "STATE"):
            patch.setenv(f"XDG_{name}_HOME", str(folder / name.lower()))
        # The development tools' plugins take a second of every pytest that a candidate runs.
        patch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
        yield folder


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def real_server(own_folders: Path) -> AsyncIterator[RealServer]:
    from agent.core.server_launching import open_server

    async with open_server(Settings(), log_dir=own_folders) as server:
        yield RealServer(url=server.url, api_key=server.api_key, slots=server.slots)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def portable_server(own_folders: Path) -> AsyncIterator[RealServer | None]:
    """The same, served by xllamacpp; None where that is not installed (extra `portable`)."""
    from agent.core.server_launching import open_server

    if importlib.util.find_spec("xllamacpp") is None:
        yield None
        return
    async with AsyncExitStack() as stack:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(llamacpp_candidates, "_WHEEL", "no_such_wheel")
            patch.setenv("PATH", os.defpath)
            opened = open_server(Settings(), log_dir=own_folders)
            server = await stack.enter_async_context(opened)
        assert "xllamacpp" in server.description
        yield RealServer(url=server.url, api_key=server.api_key, slots=server.slots)
