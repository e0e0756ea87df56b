"""The command line of llama-server as a table."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.core.config import Settings
from agent.core.errors import ModelError
from agent.core.gguf_info import GgufInfo
from agent.core.hardware import Hardware
from agent.core.launch_plan import LaunchPlan, plan_launch
from agent.core.llamacpp_binary import Binary

OPTIONAL = frozenset(
    {"--no-kv-unified", "--cache-ram", "--no-cache-idle-slots", "--slot-save-path"}
    | {"--device", "--n-gpu-layers", "--no-warmup", "--jinja", "--metrics", "--slots"}
    | {"--sse-ping-interval", "--no-ui", "--no-webui", "--offline", "--log-colors"}
    | {"--api-key-file", "--swa-full"}
    | {"--spec-type", "--spec-ngram-mod-n-min", "--spec-ngram-mod-n-match"}
)
BINARY = Binary(
    path=Path("/opt/llama-server"),
    version="1.0",
    commit="abc1234",
    flags=OPTIONAL,
    environment={"LD_LIBRARY_PATH": "/opt"},
)
LARGE = GgufInfo(
    version=3,
    architecture="qwen2",
    name="Qwen",
    file_size=1_600_000_000,
    parameters=1_540_000_000,
    context_length=32768,
    block_count=28,
    embedding_length=1536,
    head_count=12,
    head_count_kv=2,
    key_length=128,
    value_length=128,
    sliding_window=0,
    embedding=False,
)
TINY = replace(LARGE, parameters=5_000_000, file_size=5_300_000, context_length=2048)
FOUR_CORES = Hardware(physical_cores=4, memory_available=8 << 30)


def plan(
    *, info: GgufInfo = LARGE, binary: Binary = BINARY, slot_dir: Path | None = None, **given: Any
) -> LaunchPlan:
    return plan_launch(
        binary=binary,
        model=Path("/m/model.gguf"),
        info=info,
        hardware=FOUR_CORES,
        settings=Settings(**given),
        port=4711,
        slot_dir=slot_dir,
        api_key_file=Path("/private/key"),
    )


def values(made: LaunchPlan, flag: str) -> str | None:
    """What follows the flag; None when it is not given; an empty text when nothing follows."""
    if flag not in made.argv:
        return None
    assert made.argv.count(flag) == 1
    following = (*made.argv, "-")[made.argv.index(flag) + 1]
    return "" if following.startswith("-") else following


def test_the_whole_command_line() -> None:
    expected = (
        "/opt/llama-server --model /m/model.gguf --host 127.0.0.1 --port 4711 --ctx-size 16384 "
        "--parallel 4 --threads 4 --no-kv-unified --cache-ram 0 --no-cache-idle-slots "
        "--slot-save-path /s --jinja --metrics --slots --sse-ping-interval 1 --no-ui --offline "
        "--log-colors off --api-key-file /private/key"
    )
    made = plan(slot_dir=Path("/s"))
    assert " ".join(made.argv) == expected
    assert (made.slots, made.context, made.threads, made.port) == (4, 4096, 4, 4711)
    assert made.environment == {"LD_LIBRARY_PATH": "/opt", "GGML_NO_BACKTRACE": "1"}
    assert made.notes == ()
    assert made.description == "llama-server 1.0 abc1234 on 4 threads"


@pytest.mark.parametrize(
    ("given", "info", "flag", "expected"),
    [
        ({"llamacpp_parallel": 1}, LARGE, "--ctx-size", "4096"),
        ({"llamacpp_context_size": 1000, "llamacpp_parallel": 2}, LARGE, "--ctx-size", "2048"),
        ({"llamacpp_context_size": 50000}, LARGE, "--ctx-size", str(4 * 32768)),
        ({}, replace(LARGE, context_length=1000), "--ctx-size", str(4 * 1024)),
        ({}, replace(LARGE, context_length=0), "--ctx-size", str(4 * 4096)),
        ({}, LARGE, "--threads", "4"),
        ({"llamacpp_threads": 2}, LARGE, "--threads", "2"),
        ({"llamacpp_threads": 64}, LARGE, "--threads", "4"),
        ({}, TINY, "--threads", "1"),
        ({"llamacpp_threads": 2}, TINY, "--threads", "2"),
        ({}, LARGE, "--n-gpu-layers", None),
        ({"llamacpp_n_gpu_layers": 12}, LARGE, "--n-gpu-layers", "12"),
        ({"llamacpp_n_gpu_layers": "all"}, LARGE, "--n-gpu-layers", "all"),
        ({}, LARGE, "--device", None),
        ({}, TINY, "--device", "none"),
        ({"llamacpp_use_vulkan": "0"}, LARGE, "--device", "none"),
        ({"llamacpp_use_vulkan": "0", "llamacpp_n_gpu_layers": 3}, LARGE, "--n-gpu-layers", None),
        ({"llamacpp_use_vulkan": "1"}, TINY, "--device", None),
        ({"llamacpp_n_gpu_layers": 3}, TINY, "--device", None),
        ({}, LARGE, "--no-warmup", None),
        ({}, TINY, "--no-warmup", ""),
        ({}, LARGE, "--slot-save-path", None),
    ],
)
def test_values(given: dict[str, Any], info: GgufInfo, flag: str, expected: str | None) -> None:
    assert values(plan(info=info, **given), flag) == expected


def test_only_known_flags_are_given() -> None:
    made = plan(binary=replace(BINARY, flags=frozenset()), info=TINY, slot_dir=Path("/s"))
    given = [word for word in made.argv if word.startswith("--")]
    assert given == ["--model", "--host", "--port", "--ctx-size", "--parallel", "--threads"]
    assert made.key_in_environment


def test_an_older_binary_gets_the_older_spelling() -> None:
    made = plan(binary=replace(BINARY, flags=OPTIONAL - {"--no-ui"}))
    assert "--no-webui" in made.argv
    cpu = plan(binary=replace(BINARY, flags=OPTIONAL - {"--device"}), llamacpp_use_vulkan="0")
    assert values(cpu, "--n-gpu-layers") == "0"


def test_the_context_never_exceeds_what_the_model_was_trained_for() -> None:
    assert plan(info=replace(LARGE, context_length=1000)).context == 1000
    assert plan(info=TINY).notes == ()
    asked = plan(info=TINY, llamacpp_context_size=4096)
    assert asked.context == 2048
    assert "2048" in asked.notes[0]


def test_notes_where_the_plan_is_not_what_was_asked_for() -> None:
    assert "4 physical cores" in plan(llamacpp_threads=9).notes[0]
    assert (
        "LLAMACPP_USE_VULKAN=0"
        in plan(llamacpp_use_vulkan="0", llamacpp_n_gpu_layers="all").notes[0]
    )
    assert "8.0 GiB" in plan(info=replace(LARGE, file_size=20 << 30)).notes[0]


def test_an_embedding_model_is_refused() -> None:
    with pytest.raises(ModelError, match="embedding model"):
        plan(info=replace(LARGE, embedding=True))


@pytest.mark.parametrize(
    ("window", "folder", "given"),
    [(0, "/s", False), (2047, "/s", True), (2047, None, False)],
)
def test_a_sliding_window_is_kept_whole_where_prefixes_are_saved(
    window: int, folder: str | None, given: bool
) -> None:
    info = replace(LARGE, sliding_window=window)
    made = plan(info=info, slot_dir=Path(folder) if folder else None)
    assert ("--swa-full" in made.argv) is given


def test_speculation_is_off_until_it_is_asked_for() -> None:
    assert "--spec-type" not in plan().argv
    made = plan(llamacpp_speculation="ngram")
    assert made.argv[made.argv.index("--spec-type") + 1] == "ngram-mod"
    older = replace(BINARY, flags=OPTIONAL - {"--spec-type"})
    made = plan(binary=older, llamacpp_speculation="ngram")
    assert not any("spec" in word for word in made.argv)
    assert any("LLAMACPP_SPECULATION" in note for note in made.notes)
