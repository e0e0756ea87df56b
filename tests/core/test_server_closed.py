"""Who may ask a server of ours, and what it tells to everybody else."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Literal

import httpx
import psutil
import pytest
import pytest_asyncio
from pydantic import BaseModel
from servers import RealServer

from agent.core.backend_manager import Request
from agent.core.config import Settings, server_environment
from agent.core.daemon_record import daemon_folder
from agent.core.json_answer import UnfitAnswer
from agent.core.llamacpp_backend import LlamaCppBackend
from agent.core.llamacpp_server import LlamaCppServer
from agent.core.prompts import Prompt
from agent.core.sampling import CODING
from agent.core.server_launching import open_server

pytestmark = pytest.mark.usefixtures("own_cache")

EVIL = "http://evil.example"
PLANTED = "planted-token-9f2c61d04b"
GUARDED = [
    ("GET", "/props"),
    ("GET", "/slots"),
    ("GET", "/metrics"),
    ("GET", "/lora-adapters"),
    ("POST", "/completion"),
    ("POST", "/v1/chat/completions"),
    ("POST", "/tokenize"),
    ("POST", "/apply-template"),
    ("POST", "/slots/0?action=save"),
    ("POST", "/slots/0?action=restore"),
]


@pytest_asyncio.fixture
async def hostile(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[LlamaCppServer]:
    """A server that is started where the environment wants to open it, and holds a token."""
    for name, value in {
        "LLAMA_ARG_HOST": "0.0.0.0",
        "LLAMA_ARG_CORS_ORIGINS": "*",
        "LLAMA_ARG_UI": "1",
        "LLAMA_ARG_TOOLS": "all",
        "LLAMA_ARG_ENDPOINT_PROPS": "1",
        "LLAMA_API_KEY": "known-to-all",
        "GITHUB_TOKEN": PLANTED,
    }.items():
        monkeypatch.setenv(name, value)
    async with open_server(Settings(llamacpp_parallel=2)) as server:
        yield server


async def test_the_environment_cannot_open_it(hostile: LlamaCppServer) -> None:
    listening = [
        c.laddr.ip
        for c in psutil.Process(hostile.pid).net_connections()
        if c.status == psutil.CONN_LISTEN
    ]
    assert listening == ["127.0.0.1"]
    async with httpx.AsyncClient(base_url=hostile.url) as client:
        known = {"Authorization": "Bearer known-to-all"}
        assert (await client.get("/props", headers=known)).status_code == 401
        ours = {"Authorization": f"Bearer {hostile.api_key}"}
        assert (await client.get("/tools", headers=ours)).status_code != 200


async def test_key_and_tokens_are_nowhere_to_be_read(hostile: LlamaCppServer) -> None:
    process = Path(f"/proc/{hostile.pid}")
    for place in (process / "cmdline", process / "environ", hostile.log):
        content = place.read_text(errors="replace")
        assert hostile.api_key not in content
        assert PLANTED not in content
    assert hostile.api_key not in " ".join(hostile.plan.argv)
    assert not hostile.plan.api_key_file.exists()


@pytest.mark.parametrize("which", ["real", "portable"])
async def test_nothing_is_answered_without_the_key_but_its_health(
    which: str, real_server: RealServer, portable_server: RealServer | None
) -> None:
    server = _served(which, real_server, portable_server)
    async with httpx.AsyncClient(base_url=server.url) as client:
        for method, path in GUARDED:
            answer = await client.request(method, path, json={} if method == "POST" else None)
            assert answer.status_code == 401, path
        assert (await client.get("/health")).status_code == 200
        for page in ("/", "/index.html", "/bundle.js"):
            answer = await client.get(page, headers=server.headers)
            assert answer.status_code == 404


@pytest.mark.parametrize("which", ["real", "portable"])
@pytest.mark.parametrize("origin", [EVIL, "null", "http://localhost:3000", "http://127.0.0.1"])
async def test_no_web_page_may_read_an_answer(
    which: str, origin: str, real_server: RealServer, portable_server: RealServer | None
) -> None:
    server = _served(which, real_server, portable_server)
    asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    async with httpx.AsyncClient(base_url=server.url) as client:
        preflight = await client.options("/completion", headers=asked)
        public = await client.get("/v1/models", headers={"Origin": origin})
        keyed = await client.get("/props", headers=server.headers | {"Origin": origin})
    for answer in (preflight, public, keyed):
        assert answer.headers.get("access-control-allow-origin") not in (origin, "*")
        assert answer.headers.get("access-control-allow-credentials") != "true"


async def test_a_name_that_leads_to_loopback_needs_the_key(real_server: RealServer) -> None:
    """The server does not look at Host, so a rebound name reaches it: the key is what protects."""
    host = {"Host": "evil.example"}
    async with httpx.AsyncClient(base_url=real_server.url) as client:
        assert (await client.get("/props", headers=host)).status_code == 401


async def test_it_is_not_served_on_other_addresses(real_server: RealServer) -> None:
    port = httpx.URL(real_server.url).port
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.2", port)) != 0


def test_a_server_gets_what_drivers_read_and_no_token() -> None:
    environment = {
        "PATH": "/usr/bin",
        "CUDA_VISIBLE_DEVICES": "1",
        "GGML_VK_VISIBLE_DEVICES": "0",
        "LD_LIBRARY_PATH": "/opt/lib",
        "HF_TOKEN": PLANTED,
        "AWS_SECRET_ACCESS_KEY": PLANTED,
        "SSH_AUTH_SOCK": "/run/agent",
        "LLAMA_ARG_HOST": "0.0.0.0",
        "LLAMA_API_KEY": PLANTED,
    }
    assert set(server_environment(environment)) == {
        "PATH",
        "CUDA_VISIBLE_DEVICES",
        "GGML_VK_VISIBLE_DEVICES",
        "LD_LIBRARY_PATH",
    }


def test_the_record_of_a_daemon_is_for_us_alone() -> None:
    assert daemon_folder().stat().st_mode & 0o077 == 0


PROMPT = Prompt(system="s", shared="u", role="", volatile="")


class Hostile(BaseModel):
    """A schema in which the names of files stand, as that of a plan does."""

    path: Literal['%llguidance {"x": 1}', 'a"] | root ::= "b', "root ::= [", "ünï\ncode"]


async def test_names_of_files_do_not_become_a_grammar(real_server: RealServer) -> None:
    """Whatever a repository names its files, they are strings of the schema."""
    async with LlamaCppBackend(
        real_server.url, api_key=real_server.api_key, stall_timeout_s=30
    ) as backend:
        request = Request(prompt=PROMPT, sampling=CODING, max_tokens=60)
        try:
            answer, _ = await backend.complete_json(request, Hostile)
            assert answer.path
        except UnfitAnswer:
            pass  # cut off; the server took the schema all the same
        assert (await backend.complete(request)).usage.predicted > 0


def _served(which: str, real: RealServer, portable: RealServer | None) -> RealServer:
    if which == "real":
        return real
    if portable is None:
        pytest.skip("xllamacpp is not installed")
    return portable
