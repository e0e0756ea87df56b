"""Which servers are this machine, which others may be asked, and what went there."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from fakes.llama_server import KEY, FakeLlamaServer

from agent.core.backend_manager import get_backend
from agent.core.config import Settings, load_settings
from agent.core.errors import SettingsError
from agent.core.http_errors import new_client
from agent.core.remote_hosts import Sent, allowed_url, remote_host, told_since

HERE = [
    "http://127.0.0.1:8080",
    "http://127.8.9.1",
    "http://localhost:1",
    "http://LOCALHOST./",
    "https://[::1]:8443",
    "http://0.0.0.0:11434",
]
ELSEWHERE = {
    "http://gpu-box:8080": "gpu-box",
    "http://127.0.0.1.evil.example": "127.0.0.1.evil.example",
    "http://localhost.evil.example": "localhost.evil.example",
    "http://127.0.0.1@evil.example:80": "evil.example",
    "http://192.168.1.2:8080": "192.168.1.2",
    "https://[fe80::1]:80": "fe80::1",
    "http://GPU-Box.lan./v1": "gpu-box.lan",
}


@pytest.mark.parametrize("url", HERE)
def test_this_machine_need_not_be_named(url: str) -> None:
    assert remote_host(url) == ""
    assert Sent.to(url) is None
    assert allowed_url(url, "LLAMACPP_URL", Settings()) == url.rstrip("/")


@pytest.mark.parametrize("url", ELSEWHERE)
def test_another_machine_must_be_named(url: str) -> None:
    host = ELSEWHERE[url]
    assert remote_host(url) == host
    with pytest.raises(SettingsError, match="is not this machine") as refused:
        allowed_url(url, "OLLAMA_LOCAL", Settings(turbo_remote_hosts=("other", f"x.{host}")))
    assert f"TURBO_REMOTE_HOSTS={host}" in refused.value.fix
    assert allowed_url(url, "OLLAMA_LOCAL", Settings(turbo_remote_hosts=("other", host))) == url


@pytest.mark.parametrize("backend", ["llamacpp", "ollama"])
async def test_no_backend_is_opened_there(backend: str) -> None:
    settings = Settings(
        backend=backend, llamacpp_url="http://192.0.2.1:1", ollama_local="http://192.0.2.1:1"
    )
    with pytest.raises(SettingsError, match=r"192\.0\.2\.1, which is not this machine"):
        async with get_backend(settings):
            pass


async def test_what_is_sent_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server of this machine stands for another one: only its name is taken for one of them."""
    monkeypatch.setattr("agent.core.remote_hosts.remote_host", lambda url: "gpu-box")
    async with FakeLlamaServer() as server:
        settings = Settings(
            llamacpp_url=server.url, llamacpp_api_key=KEY, turbo_remote_hosts=("gpu-box",)
        )
        async with get_backend(settings) as opened:
            before = Sent(**vars(opened.sent))
            await opened.backend.count_tokens("x" * 5000)
            told = told_since(before, opened.sent)
    assert told["host"] == "gpu-box"
    assert told["requests"] == 1
    assert 5000 < told["bytes"] < 5200


async def test_a_redirection_is_not_followed() -> None:
    """Else a server that may be asked could send prompts on to one that may not."""
    seen: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(str(request.url))
        return httpx.Response(307, headers={"Location": "http://evil.example/"})

    async with new_client("http://127.0.0.1:1", stall_s=1) as client:
        client._transport = httpx.MockTransport(answer)
        client._mounts = {}
        assert (await client.post("/completion", json={})).status_code == 307
    assert seen == ["http://127.0.0.1:1/completion"]


def test_hosts_are_read_with_commas_between_them(tmp_path: Path) -> None:
    found = load_settings(
        working_directory=tmp_path,
        environ={"TURBO_REMOTE_HOSTS": "gpu-box, [fe80::1] ,"},
        user_file=tmp_path / "none",
    )
    assert found.turbo_remote_hosts == ("gpu-box", "[fe80::1]")
    assert allowed_url("http://[fe80::1]:1", "LLAMACPP_URL", found)
