"""The command line of llama-server as a table."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.core.config import Settings
from agent.core.engine_choices import Choices
from agent.core.errors import BinaryError, ModelError, SettingsError
from agent.core.gguf_info import GgufInfo
from agent.core.hardware import Hardware
from agent.core.launch_plan import LaunchPlan, plan_launch
from agent.core.launch_shape import Basis, open_ladder
from agent.core.llamacpp_binary import Binary
from agent.core.llamacpp_devices import Device

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
    model_size=1_600_000_000,
    layer_bytes=1_300_000_000,
    input_bytes=200_000_000,
    key_values=(28 * 2 * 128, 28 * 2 * 128),
    feed_forward_length=8960,
    vocabulary=151_936,
)
TINY = replace(
    LARGE,
    parameters=5_000_000,
    file_size=5_300_000,
    model_size=5_300_000,
    context_length=2048,
    vocabulary=2048,
)
FOUR_CORES = Hardware(physical_cores=4, memory_available=8 << 30)
CARD = Device(name="Vulkan0", description="Card", memory=24 << 30, free=23 << 30)
WITH_CARD = replace(FOUR_CORES, devices=(CARD,))
NEWER = replace(
    BINARY,
    flags=OPTIONAL
    | {"--threads-batch", "--batch-size", "--ubatch-size", "--flash-attn", "--load-mode"}
    | {"--cache-type-k", "--cache-type-v", "--kv-offload", "--no-kv-offload", "--fit"}
    | {"--main-gpu", "--split-mode", "--tensor-split", "--list-devices", "--mlock"}
    | {"--mmap", "--no-mmap", "--direct-io"},
)
BEFORE_LOAD_MODE = replace(NEWER, flags=NEWER.flags - {"--load-mode"})


def plan(
    *,
    info: GgufInfo = LARGE,
    binary: Binary = BINARY,
    hardware: Hardware = FOUR_CORES,
    slot_dir: Path | None = None,
    tuned: dict[str, object] | None = None,
    **given: Any,
) -> LaunchPlan:
    basis = Basis(
        binary=binary,
        model=Path("/m/model.gguf"),
        info=info,
        hardware=hardware,
        choices=Choices(Settings(**given), tuned),
    )
    ladder = open_ladder(basis)
    return plan_launch(
        basis, ladder, port=4711, slot_dir=slot_dir, api_key_file=Path("/private/key")
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
        (
            {"llamacpp_context_size": 1000, "turbo_answer_tokens": 500, "llamacpp_parallel": 2},
            LARGE,
            "--ctx-size",
            "2048",
        ),
        ({"llamacpp_context_size": 32768}, LARGE, "--ctx-size", str(4 * 32768)),
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


def test_a_default_context_gives_way_to_what_the_model_was_trained_for() -> None:
    assert plan(info=replace(LARGE, context_length=1000)).context == 1000
    assert plan(info=TINY).context == 2048
    assert plan(info=TINY).notes == ()


def test_notes_where_the_plan_is_not_what_was_asked_for() -> None:
    assert "4 physical cores" in plan(llamacpp_threads=9).notes[0]
    assert (
        "LLAMACPP_USE_VULKAN=0"
        in plan(llamacpp_use_vulkan="0", llamacpp_n_gpu_layers="all").notes[0]
    )
    huge = replace(LARGE, file_size=20 << 30, model_size=20 << 30)
    assert "8.0 GiB are free: expect it to be slow" in plan(info=huge).notes[0]
    assert (
        "No GPU is found, so LLAMACPP_N_GPU_LAYERS"
        in plan(binary=NEWER, llamacpp_n_gpu_layers="all").notes[0]
    )
    assert plan(binary=NEWER, llamacpp_n_gpu_layers=0).notes == ()
    tiny = plan(info=TINY, llamacpp_main_gpu=0)
    assert "LLAMACPP_MAIN_GPU is not used" in tiny.notes[0]


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


ENGINE = {
    "llamacpp_threads_batch": (3, "--threads-batch 3"),
    "llamacpp_batch_size": (1024, "--batch-size 1024"),
    "llamacpp_ubatch_size": (256, "--ubatch-size 256"),
    "llamacpp_flash_attention": ("off", "--flash-attn off"),
    "llamacpp_cache_type_k": ("q8_0", "--cache-type-k q8_0"),
    "llamacpp_cache_type_v": ("bf16", "--cache-type-v bf16"),
    "llamacpp_kv_offload": (False, "--no-kv-offload"),
    "llamacpp_load_mode": ("none", "--load-mode none"),
    "llamacpp_main_gpu": (0, "--main-gpu 0"),
    "llamacpp_split_mode": ("row", "--split-mode row"),
    "llamacpp_tensor_split": ("3,1", "--tensor-split 3,1"),
}


@pytest.mark.parametrize("field", sorted(ENGINE))
def test_an_engine_setting_reaches_the_server_or_is_said_to_be_unknown(field: str) -> None:
    value, words = ENGINE[field]
    two = replace(WITH_CARD, devices=(CARD, replace(CARD, name="Vulkan1")))
    made = plan(binary=NEWER, hardware=two, **{field: value})
    assert words in " ".join(made.argv)
    row = next(row for row in made.flags if row.flag == words.split()[0])
    assert row.said_by == f"setting {field.upper()}"
    assert words not in " ".join(plan(binary=NEWER, hardware=two).argv)
    older = plan(binary=BINARY, hardware=two, **{field: value})
    assert words.split()[0] not in older.argv
    assert f"so {field.upper()} is not used" in older.notes[0]
    assert "refused by this binary" in [row.said_by for row in older.flags]


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        ("mmap", "--mmap"),
        ("none", "--no-mmap"),
        ("mlock", "--mlock --no-mmap"),
        ("mmap+mlock", "--mlock"),
        ("dio", "--direct-io"),
    ],
)
def test_load_modes_in_the_words_of_older_binaries(mode: str, words: str) -> None:
    assert f"--load-mode {mode}" in " ".join(plan(binary=NEWER, llamacpp_load_mode=mode).argv)
    older = " ".join(plan(binary=BEFORE_LOAD_MODE, llamacpp_load_mode=mode).argv)
    assert words in older
    assert "--load-mode" not in older


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ({"llamacpp_context_size": 33_000}, "LLAMACPP_CONTEXT_SIZE=33000"),
        (
            {"llamacpp_cache_type_v": "q8_0", "llamacpp_flash_attention": "off"},
            "LLAMACPP_FLASH_ATTENTION=off",
        ),
        (
            {"llamacpp_batch_size": 256, "llamacpp_ubatch_size": 512},
            "LLAMACPP_UBATCH_SIZE=512",
        ),
        (
            {"llamacpp_split_mode": "none", "llamacpp_tensor_split": "1,1"},
            "LLAMACPP_SPLIT_MODE=none",
        ),
        ({"llamacpp_main_gpu": 1}, "LLAMACPP_MAIN_GPU=1"),
        ({"llamacpp_tensor_split": "1,1"}, "LLAMACPP_TENSOR_SPLIT=1,1"),
        ({"llamacpp_profile": "cpu", "llamacpp_use_vulkan": "1"}, "LLAMACPP_PROFILE=cpu"),
        ({"llamacpp_profile": "cpu", "llamacpp_n_gpu_layers": 3}, "LLAMACPP_N_GPU_LAYERS=3"),
        (
            {"llamacpp_profile": "gpu-24gb", "llamacpp_use_vulkan": "0"},
            "LLAMACPP_PROFILE=gpu-24gb",
        ),
    ],
)
def test_contradictions_name_the_setting(given: dict[str, Any], names: str) -> None:
    with pytest.raises(SettingsError) as caught:
        plan(binary=NEWER, hardware=WITH_CARD, **given)
    assert names in caught.value.message
    assert caught.value.fix
    assert caught.value.exit_code == 2


def test_a_cache_cannot_be_quantised_where_heads_do_not_fill_blocks() -> None:
    odd = replace(LARGE, key_length=80, value_length=80)
    with pytest.raises(SettingsError, match="LLAMACPP_CACHE_TYPE_K=q8_0"):
        plan(info=odd, binary=NEWER, llamacpp_cache_type_k="q8_0")


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        ({"llamacpp_profile": "gpu-24gb"}, "LLAMACPP_PROFILE=gpu-24gb"),
        ({"llamacpp_profile": "vulkan-igpu"}, "LLAMACPP_PROFILE=vulkan-igpu"),
        ({"llamacpp_use_vulkan": "1"}, "LLAMACPP_USE_VULKAN=1"),
    ],
)
def test_a_gpu_that_is_asked_for_must_be_there(given: dict[str, Any], asked: str) -> None:
    with pytest.raises(BinaryError, match=asked) as caught:
        plan(**given)
    assert "driver" in caught.value.fix


def test_a_quantised_v_cache_brings_flash_attention() -> None:
    assert values(plan(binary=NEWER, llamacpp_cache_type_v="q8_0"), "--flash-attn") == "on"
    assert values(plan(binary=NEWER, llamacpp_cache_type_k="q8_0"), "--flash-attn") is None


PROFILES = {
    "auto": "",
    "cpu": "--device none",
    "vulkan-igpu": "--n-gpu-layers all",
    "gpu-24gb": "--batch-size 4096 --ubatch-size 1024 --n-gpu-layers all --kv-offload "
    "--flash-attn on",
    "low-latency": "--batch-size 512 --cache-type-k f16 --cache-type-v f16 --load-mode mlock",
}


@pytest.mark.parametrize("profile", sorted(PROFILES))
def test_what_a_profile_asks_for(profile: str) -> None:
    made = plan(binary=NEWER, hardware=WITH_CARD, llamacpp_profile=profile)
    theirs = [row for row in made.flags if row.said_by == f"profile {profile}"]
    assert " ".join(word for row in theirs for word in row.words) == PROFILES[profile]
    assert all(row.why for row in made.flags)
    assert made.slots == 4


def test_the_profile_is_the_weakest_after_the_default() -> None:
    """Setting before tuned before profile before default; auto is nobody's wish."""

    def batch(**given: Any) -> tuple[str | None, str]:
        made = plan(binary=NEWER, **given)
        rows = [row for row in made.flags if row.flag == "--batch-size"]
        return values(made, "--batch-size"), rows[0].said_by if rows else ""

    tuned = {"llamacpp_batch_size": 1024}
    low: dict[str, Any] = {"llamacpp_profile": "low-latency"}
    assert batch() == ("512", "default")
    assert batch(**low) == ("512", "profile low-latency")
    assert batch(**low, tuned=tuned) == ("1024", "tuned")
    asked = {**low, "tuned": tuned, "llamacpp_batch_size": 256}
    assert batch(**asked) == ("256", "setting LLAMACPP_BATCH_SIZE")
    copied = plan(
        binary=NEWER,
        hardware=WITH_CARD,
        llamacpp_profile="gpu-24gb",
        llamacpp_n_gpu_layers="auto",
        llamacpp_use_vulkan="auto",
    )
    assert values(copied, "--n-gpu-layers") == "all"


def test_a_locked_model_is_copied_where_the_system_does_not_let_us_lock() -> None:
    made = plan(
        binary=NEWER,
        hardware=replace(FOUR_CORES, lockable=8 << 20),
        llamacpp_profile="low-latency",
    )
    assert values(made, "--load-mode") == "none"
    assert "RLIMIT_MEMLOCK" in made.notes[0]
    assert "8 MiB" in made.notes[0]
    assert "load mode none instead of mlock" in made.notes[1]


def test_without_devices_there_is_nothing_to_fit() -> None:
    assert values(plan(binary=NEWER), "--fit") == "off"
    assert values(plan(binary=NEWER, hardware=WITH_CARD), "--fit") is None
    # Its devices are not known, so there may be some.
    silent = replace(NEWER, flags=NEWER.flags - {"--list-devices"})
    assert values(plan(binary=silent), "--fit") is None
