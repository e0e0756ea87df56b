"""A llama-server for the checks and the evaluation: started, used, ended."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

_START_S = 60.0
_ANSWER_S = 120.0


class Server:
    """The requests that the checks need."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    @property
    def url(self) -> str:
        """Where it listens."""
        return str(self._client.base_url)

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """One request. Raises httpx.HTTPError."""
        answer = self._client.post(path, json=body)
        answer.raise_for_status()
        decoded: dict[str, Any] = answer.json()
        return decoded

    def answer(
        self,
        messages: list[dict[str, str]],
        *,
        schema: dict[str, Any] | None = None,
        temperature: float = 0.0,
        seed: int = 1,
        tokens: int = 400,
    ) -> str:
        """The model's answer to one prompt, bound to a JSON schema if one is given."""
        body: dict[str, Any] = {
            "messages": messages,
            "temperature": temperature,
            "seed": seed,
            "max_tokens": tokens,
        }
        if temperature > 0:
            body["top_p"] = 0.95
        if schema is not None:
            form = {"name": "answer", "schema": schema, "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": form}
        content: str = self.post("/v1/chat/completions", body)["choices"][0]["message"]["content"]
        return content


@contextmanager
def running_server(binary: Path, model: Path, log: Path, *, slots: int = 2) -> Iterator[Server]:
    """Start a server on a free port and end it in any case. Raises RuntimeError if it dies."""
    port = _free_port()
    command = [
        str(binary), "--model", str(model), "--host", "127.0.0.1", "--port", str(port),
        "--threads", "1", "--parallel", str(slots), "--ctx-size", str(slots * 4096),
        "--n-gpu-layers", "0", "--jinja",
    ]  # fmt: skip
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=_ANSWER_S) as client:
            _wait_until_ready(client, process, log)
            yield Server(client)
    finally:
        process.terminate()
        process.wait(timeout=10)


def _wait_until_ready(client: httpx.Client, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"llama-server ended with {process.returncode}; see {log}")
        try:
            if client.get("/health").status_code == httpx.codes.OK:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    raise RuntimeError(f"llama-server was not ready after {_START_S:.0f} s; see {log}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
