"""Imports point one way, and what belongs to one module stays there (style.md)."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODULES = sorted(
    path for path in (ROOT / "agent").rglob("*.py") if "demo/repository" not in path.as_posix()
)
NODES = {"planner", "coder", "reviewer"}
LAYER = {
    "fences": 0,
    "front_matter": 0,
    "guarded_paths": 0,
    "live_view": 1,
    "load": 0,
    "plain_view": 0,
    "python_asserts": 1,
    "python_names": 0,
    "python_tests": 2,
    "worded_tests": 0,
    "repo_context": 0,
    "secret_files": 0,
    "runs": 0,
    "tally": 0,
    "toolchain": 0,
    "answer_parser": 1,
    "evidence": 1,
    "task_file": 1,
    "hunk_parser": 2,
    "state": 2,
    "verification": 2,
    "memory": 3,
    "context": 4,
    "checkpoints": 5,
    "run_list": 4,
    "resuming": 5,
    "forgetting": 6,
    "locate": 3,
    "manifest": 3,
    "replay": 1,
    "waves": 3,
    "weakened": 3,
    "result": 3,
    "edits": 4,
    "judge": 5,
    "preparation": 5,
    "report": 4,
    "coder": 6,
    "planner": 6,
    "reviewer": 6,
    "candidates": 7,
    "conclusion": 8,
    "graph": 8,
    "workflow": 9,
    "session": 10,
}
ONE_OWNER = {
    "git": {"agent.core.workspace"},
    "subprocess": {"agent.core.llamacpp_ask"},
    "dotenv": {"agent.core.config"},
}


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def imports_of(path: Path) -> set[str]:
    found: set[str] = set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in entry_guard_removed(tree.body):
        for each in ast.walk(node):
            if isinstance(each, ast.Import):
                found |= {alias.name for alias in each.names}
            elif isinstance(each, ast.ImportFrom) and each.module:
                found |= {each.module} | {f"{each.module}.{a.name}" for a in each.names}
    return found


def entry_guard_removed(body: list[ast.stmt]) -> list[ast.stmt]:
    return [
        node
        for node in body
        if not (isinstance(node, ast.If) and "__main__" in ast.unparse(node.test))
    ]


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_core_knows_nothing_of_the_team(path: Path) -> None:
    above = ("agent.team", "agent.measure", "agent.cli")
    if name_of(path).startswith("agent.core"):
        assert not [x for x in imports_of(path) if x.startswith(above)]


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_the_team_knows_nothing_of_measurements(path: Path) -> None:
    if name_of(path).startswith("agent.team"):
        assert not [x for x in imports_of(path) if x.startswith("agent.measure")]


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_only_the_entry_imports_the_command_line(path: Path) -> None:
    if name_of(path) not in ("agent.cli", "agent.__main__"):
        assert not [x for x in imports_of(path) if x.startswith("agent.cli")]


@pytest.mark.parametrize("name", sorted(LAYER))
def test_the_team_is_imported_downwards(name: str) -> None:
    path = ROOT / "agent" / "team" / f"{name}.py"
    for imported in imports_of(path):
        other = imported.removeprefix("agent.team.").split(".")[0]
        if imported.startswith("agent.team.") and other in LAYER:
            assert LAYER[other] < LAYER[name], f"{name} imports {other}"
            assert not (name in NODES and other in NODES - {name}), f"{name} imports {other}"


def test_every_module_of_the_team_has_its_layer() -> None:
    assert {path.stem for path in (ROOT / "agent" / "team").glob("[!_]*.py")} == set(LAYER)


@pytest.mark.parametrize(("module", "owners"), sorted(ONE_OWNER.items()))
def test_each_dangerous_module_has_one_owner(module: str, owners: set[str]) -> None:
    users = {
        name_of(path) for path in MODULES if module in {x.split(".")[0] for x in imports_of(path)}
    }
    assert users <= owners


def is_of_psutil(node: ast.Attribute) -> bool:
    """`process.environ()` is the environment of another process."""
    return isinstance(node.value, ast.Name) and node.value.id == "process"


def test_only_the_settings_read_the_environment() -> None:
    readers = {
        name_of(path)
        for path in MODULES
        if any(
            isinstance(node, ast.Attribute)
            and node.attr in ("environ", "getenv")
            and not is_of_psutil(node)
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        )
    }
    assert readers <= {"agent.core.config"}


def test_processes_start_in_their_owners_only() -> None:
    starters = {
        name_of(path)
        for path in MODULES
        if "create_subprocess_exec" in path.read_text(encoding="utf-8")
    }
    assert starters <= {
        "agent.core.command",
        "agent.core.llamacpp_server",
    }
