"""docs/benchmarking.md and README: their commands exist, and no figure of a fake is in them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer

from agent.cli import app
from agent.measure.bench_figures import MEASURES
from agent.measure.model_shapes import SHAPES
from agent.measure.shape_mix import QUANTISATIONS
from benchmarks import guide

ROOT = Path(__file__).parent.parent
DOCUMENT = (ROOT / "docs" / "benchmarking.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")


def commands(text: str) -> list[list[str]]:
    """The lines of all shell blocks as words, without comments."""
    blocks = re.findall(r"^ *```sh\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)
    joined = "\n".join(blocks).replace("\\\n", " ")
    return [shlex.split(line, comments=True) for line in joined.splitlines() if line.strip()]


def without_variables(words: list[str]) -> list[str]:
    while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
        words = words[1:]
    return words


ALL = [without_variables(words) for words in commands(DOCUMENT) + commands(README)]
BENCH = [words[2:] for words in ALL if words[:2] == ["turbo", "bench"]]
GUIDE = [words[2:] for words in ALL if words[:2] == ["python", "benchmarks/guide.py"]]
TIMED = [
    without_variables(shlex.split(word))
    for words in ALL
    if words[:1] == ["hyperfine"]
    for word in words[1:]
    if "turbo" in word or "agent" in word
]


@pytest.mark.parametrize("words", BENCH, ids=" ".join)
def test_options_of_bench_exist(words: list[str]) -> None:
    command = typer.main.get_command(app).commands["bench"]  # type: ignore[attr-defined]
    command.make_context("bench", list(words))


@pytest.mark.parametrize("words", GUIDE, ids=" ".join)
def test_options_of_the_guide_exist(words: list[str]) -> None:
    guide.parser().parse_args(words)


def test_what_hyperfine_times_are_our_commands() -> None:
    assert len(TIMED) >= 3
    for words in TIMED:
        assert words[:2] == ["turbo", "run"] or words[1:] == ["-m", "agent.team.workflow"]


def test_every_figure_shape_and_quantisation_is_explained() -> None:
    for measure in MEASURES:
        assert f"| {measure.title} |" in DOCUMENT
    for name in SHAPES:
        assert f"`{name.removeprefix('qwen2.5-coder')}`" in DOCUMENT or f"`{name}`" in DOCUMENT
    for name in QUANTISATIONS:
        assert f"`{name}`" in DOCUMENT


def test_no_figure_of_the_fake_ollama_is_published() -> None:
    for path in [*(ROOT / "docs").rglob("*.md"), ROOT / "README.md", ROOT / "CHANGELOG.md"]:
        assert "fake-coder" not in path.read_text(encoding="utf-8")
