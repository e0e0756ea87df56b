"""When a run may use a server that was started for another."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from agent.core.config import Settings, embedded_model
from agent.core.daemon_wish import differences, wish_of

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.mark.parametrize(
    "without_effect",
    [
        {"llamacpp_port": 8080},
        {"llamacpp_start_timeout_s": 5.0},
        {"llamacpp_model_path": embedded_model()},
        {"turbo_candidates": 2},
        {"prefix_bank_max_mb": 0},
    ],
)
def test_what_does_not_shape_the_server_may_differ(without_effect: dict[str, object]) -> None:
    other = Settings(**without_effect)  # type: ignore[arg-type]
    assert differences(wish_of(Settings()), wish_of(other)) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("llamacpp_parallel", 2),
        ("llamacpp_context_size", 8192),
        ("llamacpp_threads", 1),
        ("llamacpp_speculation", "ngram"),
        ("llamacpp_use_vulkan", "0"),
    ],
)
def test_what_shapes_it_is_named(name: str, value: object) -> None:
    other = Settings(**{name: value})  # type: ignore[arg-type]
    found = differences(wish_of(other), wish_of(Settings()))
    assert len(found) == 1
    assert found[0].startswith(f"{name.upper()} is {value} there and")


def test_a_model_counts_by_its_content(tmp_path: Path) -> None:
    copy = tmp_path / "copy.gguf"
    shutil.copy(embedded_model(), copy)
    first = wish_of(Settings(llamacpp_model_path=copy))
    assert differences(first, wish_of(Settings())) == []
    with copy.open("ab") as file:
        file.write(b"\0")
    changed = wish_of(Settings(llamacpp_model_path=copy))
    assert differences(first, changed) == ["the content of the model has changed since"]
    assert differences(changed, wish_of(Settings())) == [
        f"it serves {copy}, not {embedded_model()}"
    ]


def test_a_server_that_was_replaced_by_another_build_is_no_match(tmp_path: Path) -> None:
    program = tmp_path / "llama-server"
    program.write_text("#!/bin/sh\necho 'version: 1 (abcdef0)'\n" + _HELP)
    program.chmod(0o755)
    settings = Settings(llamacpp_binary_path=program)
    before = wish_of(settings)
    os.utime(program, ns=(1, 1))
    assert differences(before, wish_of(settings)) == ["the build of llama-server has changed since"]
    assert any("llama-server is" in x for x in differences(before, wish_of(Settings())))


_HELP = "".join(
    f"echo '--{name} N'\n" for name in ("model", "host", "port", "ctx-size", "parallel", "threads")
)
