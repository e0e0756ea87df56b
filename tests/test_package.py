"""What `pip install .` brings must work without the checkout."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def test_prompts_demo_and_model_are_inside(installed: Path) -> None:
    ours = {path.name for path in (ROOT / "prompts").glob("*.md")}
    assert {path.name for path in (installed / "agent" / "prompts").glob("*.md")} == ours
    assert (installed / "agent/demo/repository/tasks/add-slugify.md").is_file()
    assert (installed / "agent/demo/repository/pyproject.toml").is_file()
    assert (installed / "agent/models/catalogue.toml").is_file()
    size = (installed / "agent/models/tiny-coder-q8_0.gguf").stat().st_size
    assert 1_000_000 < size <= 15_000_000


def test_nothing_of_the_checkout_is_inside(installed: Path) -> None:
    top = {path.name for path in installed.iterdir() if not path.name.endswith(".dist-info")}
    assert top == {"agent"}
    assert not list(installed.rglob("__pycache__"))


def test_the_demo_runs_from_the_wheel_outside_the_checkout(installed: Path, tmp_path: Path) -> None:
    program = (
        "import sys; sys.path.insert(0, sys.argv.pop(1)); import agent;"
        "from agent.cli import main; print(agent.__file__); sys.exit(main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", program, str(installed), "run", "--quiet"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    assert str(installed) in done.stdout
    assert "accepted" in done.stdout
    assert list(tmp_path.iterdir()) == []
