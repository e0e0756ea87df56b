"""Files that only a task that names them may change."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fakes.llama_server import KEY
from fakes.team_server import FakeTeamServer, plan
from team.conftest import git, run_turbo
from team.open_team import Events, open_team

from agent.core.errors import BadAnswer
from agent.team.guarded_paths import is_test, why_guarded
from agent.team.planner import make_plan
from agent.team.task_file import Task

TRACKED = (
    *("kit/__init__.py", "calendar/a.py", "Makefile", "lone.py", "json/data.txt"),
    *("both/a.py", "src/both/a.py", "src/inner/a.py", "src/kit/a.py", "web/index.js"),
)


@pytest.mark.parametrize(
    "path",
    [
        *("tests/test_a.py", "kit/test/a.py", "test_a.py", "kit/a_test.py", "kit/conftest.py"),
        *(
            "kit/tests.py",
            "web/a.test.tsx",
            "web/a.spec.js",
            "web/__tests__/a.js",
            "spec/a_spec.rb",
        ),
        *("kit/a_test.go", "kit/testdata/x.json", "src/test/java/A.java", "src/AppTest.java"),
        *("src/TestApp.java", "Kit/AppTests.cs", "web/__snapshots__/a.snap", "e2e/a.ts"),
        *("tests/a.rs", "kit/integration_tests/a.py", "kit/a_unittest.cc", "test/a.bats"),
    ],
)
def test_tests_are_known_by_their_names(path: str) -> None:
    assert is_test(path)
    assert why_guarded(path, TRACKED, ()) == "is a test"


@pytest.mark.parametrize(
    "path",
    [
        *("kit/contest.py", "kit/latest.py", "kit/attest/a.py", "docs/load_test.md", "kit/spec.md"),
        *("src/PodSpec.java", "kit/testing.py", "src/main/java/Contest.java", "kit/protest.go"),
        *(
            "kit/json.py",
            "src/kit/types.py",
            "calendar/new.py",
            "README.md",
            "tool.py",
            "src/tool.py",
            "both/new.py",
            "src/both/new.py",
        ),
        *("docs/tasks/a.md", "kit/github/a.py", "next.config.js"),
    ],
)
def test_other_files_are_free(path: str) -> None:
    assert why_guarded(path, TRACKED, ()) is None


@pytest.mark.parametrize(
    "path",
    [
        *("pyproject.toml", "sub/package.json", "Makefile", "tox.ini", "setup.cfg", "pytest.ini"),
        *("jest.config.ts", "vitest.config.mjs", "Cargo.toml", "build.gradle.kts", "pom.xml"),
        *(".github/workflows/ci.yml", ".gitlab-ci.yml", ".circleci/config.yml", "Jenkinsfile"),
        *(".gitattributes", "kit/.gitattributes", ".gitconfig", ".husky/pre-commit", ".githooks/x"),
        *(".pre-commit-config.yaml", ".vscode/tasks.json", ".envrc", ".env", "turbo.toml"),
        *("tasks/next.md", "node_modules/jest/index.js", ".venv/lib/x.py", "x.pth"),
        *("sitecustomize.py", "kit/usercustomize.py", "pytest.py", "src/pluggy.py", "json.py"),
        *("unittest/__init__.py", "src/_pytest/x.py", "os.py"),
        *("evil.dist-info/entry_points.txt", "src/a.egg-info/entry_points.txt", "a.egg-link"),
        *("pytest.toml", ".pytest.toml", "setup.py", "go.mod", "jest.setup.js", "bunfig.toml"),
        *(".bazelrc", "a.code-workspace", ".gitea/workflows/a.yml", ".claude/settings.json"),
        *(".cargo/config.toml", ".mise.toml", ".nvim.lua", "kit/.exrc", ".gitignore", "src/.x/a"),
        *("TASKS/x.md", "tasks/X.MD", "Node_Modules/a.js", "PyTest.ini", "MAKEFILE", "Turbo.TOML"),
        *("pygments/__init__.py", "src/iniconfig.py", "packaging/x.py", "exceptiongroup.py"),
        *(
            "anyio.py",
            "Json.py",
            "pytest_cov/plugin.py",
            "json/__init__.py",
            "calendar/__init__.py",
        ),
        *("src/lone.py", "src/lone/__init__.py", "inner/a.py", "inner.py", "src/calendar/x.py"),
        *("src/Lone.py", "src/web/test/AppTest.JAVA", "src/both/__init__.py"),
    ],
)
def test_what_judges_or_runs_programs_is_guarded(path: str) -> None:
    assert why_guarded(path, TRACKED, ()) is not None


def test_what_git_runs_is_guarded() -> None:
    assert why_guarded("scripts/pre-push", TRACKED, ["scripts"]) is not None
    assert why_guarded("Scripts/pre-push", TRACKED, ["scripts"]) is not None
    assert why_guarded("scripts.py", TRACKED, ["scripts"]) is None


def steps(*paths: str) -> str:
    made = [
        {"path": path, "action": "edit", "instruction": path, "depends_on": needs}
        for path, needs in zip(paths, ([], [1], [1, 2]), strict=False)
    ]
    return json.dumps({"summary": "S", "steps": made, "read": []})


async def test_a_plan_loses_the_steps_that_the_task_does_not_name(repository: Path) -> None:
    events: Events = []
    told = steps("kit/a.py", "tests/test_double.py", "kit/b.py")
    async with (
        FakeTeamServer(planner=told) as server,
        open_team(server, repository, events=events) as team,
    ):
        made = await make_plan(Task(title="T", body="B", source="t.md"), team)
    assert [(step.path, step.depends_on) for step in made.steps] == [
        ("kit/a.py", []),
        ("kit/b.py", [1]),
    ]
    (notice,) = [data["text"] for event, data in events if event == "notice"]
    assert "tests/test_double.py is a test" in notice
    assert "under files" in notice


async def test_a_plan_of_nothing_else_is_refused_with_the_way_out(repository: Path) -> None:
    async with (
        FakeTeamServer(planner=plan("conftest.py")) as server,
        open_team(server, repository) as team,
    ):
        with pytest.raises(BadAnswer, match=r"conftest\.py is a test.*\n.*under files"):
            await make_plan(Task(title="T", body="B", source="t.md"), team)


async def test_a_task_that_names_a_test_may_change_it(repository: Path) -> None:
    task = Task(title="T", body="B", source="t.md", files=("tests/test_double.py",))
    async with (
        FakeTeamServer(planner=plan("tests/test_double.py")) as server,
        open_team(server, repository) as team,
    ):
        made = await make_plan(task, team)
    assert [step.path for step in made.steps] == ["tests/test_double.py"]


@pytest.mark.parametrize("path", ["KIT/new.py", "kit/Other.py", "readme.md"])
async def test_a_step_that_differs_from_a_file_by_case_is_refused(
    repository: Path, path: str
) -> None:
    async with (
        FakeTeamServer(planner=plan(path)) as server,
        open_team(server, repository) as team,
    ):
        with pytest.raises(BadAnswer, match="only by case"):
            await make_plan(Task(title="T", body="B", source="t.md"), team)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("vendor/lib/new.py", "3: files: 'vendor/lib/new.py' is in the submodule vendor/lib"),
        ("kit/Double.py, kit/double.py", "differs from kit/Double.py only by case"),
        ("Kit/new.py", "differs from kit only by case"),
    ],
)
async def test_a_task_that_names_what_cannot_be_committed_does_not_start(
    repository: Path, path: str, said: str
) -> None:
    git(repository, "update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},vendor/lib")
    git(repository, "-c", "user.name=u", "-c", "user.email=u@x", "commit", "-qm", "more")
    (repository / "t.md").write_text(f"---\ntitle: T\nfiles: [{path}]\n---\nB\n")
    async with FakeTeamServer() as server:
        ended = await run_turbo(
            "run", "t.md", cwd=repository, LLAMACPP_URL=server.url, LLAMACPP_API_KEY=KEY
        )
    assert ended.exit_code == 2
    assert said in ended.err
