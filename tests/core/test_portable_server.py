"""llama.cpp in a Python process of its own, started with the flags of llama-server."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from agent.cli import main
from agent.core import llamacpp_candidates, portable_server
from agent.core.config import Settings, embedded_model
from agent.core.errors import BinaryError, ServerDied
from agent.core.llamacpp_binary import find_binary
from agent.core.server_launching import open_server

COMMAND = (sys.executable, "-P", portable_server.__file__)

needs_library = pytest.mark.skipif(
    importlib.util.find_spec("xllamacpp") is None,
    reason="xllamacpp is not installed: pip install -e '.[portable]'",
)


@pytest.fixture
def only_portable(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No binary fits this machine."""
    monkeypatch.setattr(llamacpp_candidates, "_WHEEL", "no_such_wheel")


def run(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, cwd=cwd)


@needs_library
@pytest.mark.usefixtures("only_portable")
def test_it_is_the_last_candidate(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("PATH", os.defpath)
    binary = find_binary(Settings(), cache=tmp_path)
    assert binary.command == COMMAND
    assert binary.version.startswith("xllamacpp-")
    monkeypatch.setattr("agent.core.llamacpp_binary.probe", pytest.fail)
    assert find_binary(Settings(), cache=tmp_path) == binary


@needs_library
@pytest.mark.usefixtures("only_portable")
def test_the_demo_runs_on_it(capfd: pytest.CaptureFixture[str]) -> None:
    for saved in (False, True):
        assert main(["run", "--json"]) == 0
        events = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
        (ready,) = (x for x in events if x["event"] == "server_ready")
        assert "xllamacpp" in json.dumps(ready)
        tokens = events[-1]["tokens"]
        assert tokens["cached"] >= tokens["expected_cached"] > 0
        if not saved:
            first = tokens["computed"]
    assert tokens["computed"] < first  # what the first run saved was restored


@needs_library
@pytest.mark.usefixtures("only_portable")
async def test_its_deaths_are_told_as_those_of_a_binary(tmp_path: Path) -> None:
    model = tmp_path / "strange.gguf"
    content = bytearray(embedded_model().read_bytes())
    at = content.index(b"general.architecture") + len("general.architecture") + 12
    content[at : at + 3] = b"zzz"
    model.write_bytes(content)
    with pytest.raises(ServerDied) as caught:
        async with open_server(Settings(llamacpp_model_path=model)):
            pass
    assert caught.value.kind == "model"
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ServerDied) as caught:
            async with open_server(Settings(llamacpp_port=taken.getsockname()[1])):
                pass
    assert caught.value.kind == "port"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--nonsense",), "invalid argument: --nonsense"),
        (("--port",), "expected value for argument: --port"),
        (("--port", "x"), "invalid argument: --port x"),
        (("--cache-type-k", "q77"), "invalid argument: --cache-type-k q77"),
        (("--api-key-file", "/no/such/file"), "No such file"),
        (("--model", "/no/such/model.gguf", "--host", "127.0.0.1"), "Failed to init server"),
    ],
)
@needs_library
def test_wrong_flags(arguments: tuple[str, ...], reason: str) -> None:
    done = run(*arguments)
    assert done.returncode == 1
    assert reason in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


@needs_library
def test_flags_reach_the_library() -> None:
    import xllamacpp

    given = "--fit off --load-mode mmap+mlock --split-mode row --no-kv-offload"
    parameters = xllamacpp.CommonParams()
    portable_server._fill(parameters, given.split())
    assert parameters.fit_params is False
    assert parameters.load_mode.name == "LLAMA_LOAD_MODE_MMAP_MLOCK"
    assert parameters.split_mode.name == "LLAMA_SPLIT_MODE_ROW"
    assert parameters.no_kv_offload is True
    asked = "--cache-type-k q8_0 --flash-attn on --spec-type ngram-mod --n-gpu-layers all"
    portable_server._fill(parameters, asked.split())
    assert parameters.cache_type_k.name == "GGML_TYPE_Q8_0"
    assert parameters.flash_attn_type.name == "LLAMA_FLASH_ATTN_TYPE_ENABLED"
    assert parameters.n_gpu_layers == -2
    assert [x.name for x in parameters.speculative.types] == ["COMMON_SPECULATIVE_TYPE_NGRAM_MOD"]


def test_it_imports_nothing_from_the_folder_it_is_started_in(tmp_path: Path) -> None:
    for name in ("importlib", "threading", "xllamacpp"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the wrong one')")
    assert "the wrong one" not in run("--help", cwd=tmp_path).stderr


OTHER_LIBRARY = """
class CommonParams:
    n_ctx = n_parallel = port = 0
    class model:
        path = ""
    class cpuparams:
        n_threads = 1
"""


def test_a_version_with_other_parameters_is_passed_over(
    tmp_path: Path, monkeypatch, alone: None
) -> None:
    package = tmp_path / "site" / "xllamacpp"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(
        f"__version__ = '1'\nBUILD_INFO = {{'commit': 'unknown'}}\n{OTHER_LIBRARY}"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.setattr(llamacpp_candidates, "_LIBRARY", "xllamacpp")
    with pytest.raises(BinaryError, match="its --help does not name --host"):
        find_binary(Settings(), cache=tmp_path / "c")


def test_a_library_that_cannot_be_loaded_is_passed_over(
    tmp_path: Path, monkeypatch, alone: None
) -> None:
    package = tmp_path / "site" / "xllamacpp"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("from . import core")
    (package / "core.so").write_bytes(b"ELF of another machine")
    (package / "core.abi3.so").write_bytes(b"ELF of another machine")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.setattr(llamacpp_candidates, "_LIBRARY", "xllamacpp")
    with pytest.raises(BinaryError, match=r"--version exits 1: ImportError: .*core"):
        find_binary(Settings(), cache=tmp_path / "c")
