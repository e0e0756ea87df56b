"""`turbo server plan`: what is shown, what is refused, and that nothing is started."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import psutil
import pytest
from fakes.gguf_writer import BASIC, gguf

from agent.cli import main
from agent.core.config import cache_dir, embedded_model

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache and a working folder of this test; no process may be left."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def plan(capfd: Capture, *options: str) -> dict[str, Any]:
    assert main(["server", "plan", "--json", *options]) == 0
    shown: dict[str, Any] = json.loads(capfd.readouterr().out)
    return shown


def test_every_flag_is_shown_with_its_reason_and_who_said_so(
    capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLAMACPP_PARALLEL", "2")
    monkeypatch.setenv("LLAMACPP_PROFILE", "low-latency")
    before = set(psutil.Process().children(recursive=True))
    assert main(["server", "plan"]) == 0
    shown = capfd.readouterr()
    rows = {line.split()[0]: line for line in shown.out.splitlines() if line.startswith("--")}
    assert "setting LLAMACPP_PARALLEL" in rows["--parallel"]
    assert "profile low-latency" in rows["--batch-size"]
    assert "default" in rows["--no-kv-unified"]
    assert "KV cache (12 MiB per slot)" in shown.out
    assert "No model set" in shown.err
    assert set(psutil.Process().children(recursive=True)) <= before
    assert not (cache_dir() / "logs").exists()


def test_the_same_for_programs(capfd: Capture) -> None:
    shown = plan(capfd)
    words = [word for row in shown["flags"] if row["origin"] != "refused"
             for word in (row["flag"], row["value"]) if word is not None]  # fmt: skip
    assert shown["argv"][1:] == words
    assert all(row["why"] for row in shown["flags"])
    assert shown["memory"]["kv_per_slot"] == 4096 * 3072
    assert shown["memory"]["needed"]["memory"] == sum(x["size"] for x in shown["memory"]["parts"])
    assert shown["memory"]["fits"] is True
    assert shown["model"]["path"] == str(embedded_model())
    assert shown["rung"] == "asked"


def test_flags_that_the_binary_lacks_are_listed_and_not_given(
    capfd: Capture, own_place: Path
) -> None:
    binary = own_place / "llama-server"
    binary.write_text(
        "#!/bin/sh\n"
        "for f in --model --host --port --ctx-size --parallel --threads; do\n"
        'echo "$f X  text"; done\n'
    )
    binary.chmod(0o755)
    (own_place / ".env").write_text(f"LLAMACPP_BINARY_PATH={binary}\n")
    shown = plan(capfd)
    refused = [row["flag"] for row in shown["flags"] if row["origin"] == "refused"]
    assert "--no-kv-unified" in refused
    assert not set(refused) & set(shown["argv"])


def test_settings_of_the_repository_count(capfd: Capture, own_place: Path) -> None:
    (own_place / ".git").mkdir()
    (own_place / "turbo.toml").write_text("[llamacpp]\ncontext_size = 2048\n")
    assert "8192" in plan(capfd)["argv"]


def model(path: Path, **values: object) -> Path:
    path.write_bytes(gguf({**BASIC, **values}))
    return path


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("LLAMACPP_PROFILE", "turbo", "'auto', 'cpu', 'vulkan-igpu', 'gpu-24gb' or 'low-latency'"),
        ("LLAMACPP_PARALLEL", "0", "LLAMACPP_PARALLEL=0"),
        ("LLAMACPP_CONTEXT_SIZE", "5000", "trained for 4096 tokens"),
        ("LLAMACPP_TENSOR_SPLIT", "3;1", "numbers with commas"),
        ("LLAMACPP_LOAD_MODE", "fast", "LLAMACPP_LOAD_MODE=fast"),
        ("LLAMACPP_N_GPU_LAYERS", "-1", "LLAMACPP_N_GPU_LAYERS=-1"),
    ],
)
def test_wrong_settings_are_refused_by_name(
    capfd: Capture, monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    monkeypatch.setenv(name, value)
    assert main(["server", "plan", "--json"]) == 2
    shown = capfd.readouterr()
    assert said in shown.err
    assert name in shown.err
    assert shown.out == ""


def test_a_quantised_cache_without_flash_attention(
    capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLAMACPP_CACHE_TYPE_V", "q8_0")
    monkeypatch.setenv("LLAMACPP_FLASH_ATTENTION", "off")
    assert main(["server", "plan"]) == 2
    assert "LLAMACPP_CACHE_TYPE_V=q8_0 needs flash attention" in capfd.readouterr().err


@pytest.mark.parametrize(
    "values",
    [
        {"general.architecture": "bert", "bert.attention.causal": False},
        {"llama.pooling_type": 3},
    ],
)
def test_a_model_that_cannot_write(
    capfd: Capture, own_place: Path, values: dict[str, object]
) -> None:
    path = model(own_place / "embed.gguf", **values)
    assert main(["server", "plan", "--model", str(path)]) == 3
    assert "an embedding model" in capfd.readouterr().err


def test_no_such_model(capfd: Capture, own_place: Path) -> None:
    assert main(["server", "plan", "--model", str(own_place / "none.gguf")]) == 3
    assert "no such file" in capfd.readouterr().err


def test_an_architecture_that_nobody_knows_is_planned_without_a_cache(
    capfd: Capture, own_place: Path
) -> None:
    """Only the binary can tell whether it knows it; what is not in the header is said to be so."""
    path = model(own_place / "odd.gguf", **{"general.architecture": "zebra"})
    shown = plan(capfd, "--model", str(path))
    assert shown["memory"]["kv_per_slot"] == 0
    assert any("zebra" in note and "KV cache" in note for note in shown["notes"])


def test_a_cache_that_cannot_be_written(
    capfd: Capture, own_place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (own_place / "cache").write_text("a file where the folder should be")
    monkeypatch.setattr("tempfile.tempdir", str(own_place))
    assert plan(capfd)["memory"]["fits"] is True


def test_a_gpu_profile_without_a_gpu(capfd: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAMACPP_PROFILE", "gpu-24gb")
    monkeypatch.setenv("GGML_VK_VISIBLE_DEVICES", "")
    assert main(["server", "plan"]) == 3
    assert "LLAMACPP_PROFILE=gpu-24gb" in capfd.readouterr().err


@pytest.mark.parametrize("minutes", ["inf", "1e300", "nan", "0"])
def test_no_server_sleeps_after_so_long(capfd: Capture, own_place: Path, minutes: str) -> None:
    assert main(["server", "start", "--sleep-idle", minutes]) == 2
    assert "--sleep-idle" in capfd.readouterr().err
