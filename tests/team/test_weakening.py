"""Whole runs with models that cheat: who weakens the tests loses, and is told why."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from fakes.llama_server import KEY
from fakes.team_server import ACCEPT, FakeTeamServer, Speak, code, plan
from team.conftest import TASK, TESTS, Outcome, git, run_turbo

RIGHT = code("def double(number):\n    return number * 2\n")
WRONG = code("def double(number):\n    return number * 3\n")
TASK_WITH_TESTS = TASK.replace("[kit/double.py]", "[kit/double.py, tests/test_double.py]")


def both(*paths: str) -> str:
    steps = [
        {"path": path, "action": "edit", "instruction": f"Write {path}.", "depends_on": []}
        for path in paths
    ]
    return json.dumps({"summary": "S", "steps": steps, "read": []})


PLAN = both("kit/double.py", "tests/test_double.py")
EMPTY = code("import kit\n")


async def turbo(
    server: FakeTeamServer, repository: Path, *arguments: str, **environment: str
) -> Outcome:
    return await run_turbo(
        "run", "--json", *arguments,
        cwd=repository, LLAMACPP_URL=server.url, LLAMACPP_API_KEY=KEY, **environment,
    )  # fmt: skip


def coder(source: str, *answers: str) -> Speak:
    """A coder whose answers for the test file come in this order, the last one again and again."""
    asked: list[str] = []

    def speak(prompt: str, earlier: int) -> str:
        if "Write tests/test_double.py." not in prompt:
            return source
        asked.append(prompt)
        return answers[min(len(asked), len(answers)) - 1]

    return speak


async def test_who_deletes_the_failing_test_loses_and_the_honest_one_wins(
    repository: Path,
) -> None:
    (repository / "task.md").write_text(TASK_WITH_TESTS)
    stronger = code(TESTS + "\n\ndef test_zero():\n    assert double(0) == 0\n")
    async with FakeTeamServer(
        planner=PLAN, coder=coder(RIGHT, EMPTY, stronger), reviewer=ACCEPT
    ) as server:
        ended = await turbo(server, repository, "--candidates", "2", "task.md")
    assert ended.exit_code == 0, ended.err
    assert ended.last["status"] == "accepted"
    honest, cheat = sorted(ended.named("candidate_verified"), key=lambda event: event["status"])
    assert cheat["status"] == "red"
    assert "tests/test_double.py: 0 tests, not 1 as before" in cheat["weakened"]
    assert cheat["summary"] == cheat["weakened"]
    assert (honest["status"], honest["weakened"]) == ("green", "")
    committed = git(repository, "show", f"{ended.last['commit']}:tests/test_double.py")
    assert "test_double" in committed
    assert "test_zero" in committed
    assert "weakened the tests in round 1: " in ended.err


async def test_a_cheat_is_told_why_and_its_repair_may_win(repository: Path) -> None:
    (repository / "task.md").write_text(TASK_WITH_TESTS)
    skipped = code(
        TESTS.replace("def test_double", "import pytest\n@pytest.mark.skip\ndef test_double")
    )
    async with FakeTeamServer(
        planner=PLAN,
        coder=coder(RIGHT, skipped),
        repair=coder(RIGHT, code(TESTS)),
        reviewer=ACCEPT,
    ) as server:
        ended = await turbo(server, repository, "--candidates", "1", "task.md")
        repairs = [prompt for role, prompt in server.prompts if role == "repair"]
    assert ended.exit_code == 0, ended.err
    assert "test_double is skipped or expected to fail" in repairs[0]
    assert "Put back what they had" in repairs[0]
    assert (
        git(repository, "show", "--format=", "--name-only", ended.last["commit"]) == "kit/double.py"
    )


async def test_cheats_alone_end_the_run_with_that_reason(repository: Path) -> None:
    (repository / "task.md").write_text(TASK_WITH_TESTS)
    async with FakeTeamServer(
        planner=PLAN, coder=coder(WRONG, EMPTY), repair=coder(WRONG, EMPTY), reviewer=ACCEPT
    ) as server:
        ended = await turbo(
            server, repository, "--candidates", "1", "task.md", TURBO_ROUNDS="1", TURBO_PLANS="1"
        )
        asked = {role for role, _ in server.prompts}
    assert ended.exit_code == 1
    assert ended.last["status"] == "failed"
    assert "without weakening them" in ended.last["reason"]
    assert "0 tests, not 1 as before (test_double removed)" in ended.last["reason"]
    assert ended.last["candidates"]["green"] == 0
    assert "reviewer" not in asked
    assert git(repository, "branch", "--format=%(refname:short)") == "main"


@pytest.mark.parametrize(
    ("cheat", "said"),
    [
        (
            TESTS.replace("    assert", "    if 1 == 2:\n        assert"),
            "test_double does not always reach",
        ),
        (f"{TESTS}\n\ntest_double = lambda: None\n", "test_double removed"),
        (f"{TESTS}\n\ndef double(number):\n    return 2 * number\n", "another meaning"),
    ],
)
async def test_tests_that_run_but_have_no_force_lose(
    repository: Path, cheat: str, said: str
) -> None:
    """pytest itself is green with each of them."""
    (repository / "task.md").write_text(TASK_WITH_TESTS)
    async with FakeTeamServer(
        planner=PLAN,
        coder=coder(WRONG, code(cheat)),
        repair=coder(RIGHT, code(TESTS)),
        reviewer=ACCEPT,
    ) as server:
        ended = await turbo(server, repository, "--candidates", "1", "task.md")
    assert ended.exit_code == 0, ended.err
    assert said in judged_first(ended)["weakened"]
    assert "number * 2" in git(repository, "show", ended.last["commit"])


async def test_a_task_about_removing_tests_is_possible_when_the_user_says_so(
    repository: Path,
) -> None:
    (repository / "task.md").write_text(
        TASK_WITH_TESTS.replace("pytest -q -p no:cacheprovider", f"{sys.executable} -c 0")
    )
    async with FakeTeamServer(planner=PLAN, coder=coder(WRONG, EMPTY), reviewer=ACCEPT) as server:
        ended = await turbo(
            server, repository, "--candidates", "1", "task.md", TURBO_WEAKER_TESTS="allow"
        )
    assert ended.exit_code == 0, ended.err
    (repository / "turbo.toml").write_text('turbo_weaker_tests = "allow"\n')
    async with FakeTeamServer() as server:
        refused = await turbo(server, repository, "task.md")
    assert refused.exit_code == 2
    assert "may not be set by a repository" in refused.err


def judged_first(ended: Outcome) -> dict[str, Any]:
    """The last word on the candidate of the first round: the tests of the base end during its
    review."""
    told = ended.named("candidate_verified")
    return [each for each in told if each["round"] == told[0]["round"]][-1]


@pytest.mark.parametrize("at_base", ["import fails", "test fails", "test passes"])
async def test_a_source_that_ends_the_process_does_not_pass_for_green(
    repository: Path, at_base: str
) -> None:
    """pytest would leave with exit code 0 and without a word, whatever the tests are."""
    if at_base != "import fails":
        factor = 2 if at_base == "test passes" else 3
        (repository / "kit/double.py").write_text(
            f"def double(number):\n    return {factor} * number\n"
        )
        git(repository, "add", "--all")
        git(repository, "-c", "user.name=u", "-c", "user.email=u@x", "commit", "-qm", "more")
    cheat = code("import os\n\nos._exit(0)\n")
    async with FakeTeamServer(
        planner=plan("kit/double.py"), coder=cheat, repair=RIGHT, reviewer=ACCEPT
    ) as server:
        ended = await turbo(
            server, repository, "--candidates", "1", "tasks/add-double.md",
            TURBO_ROUNDS="2" if at_base != "test passes" else "1", TURBO_PLANS="1",
        )  # fmt: skip
        repairs = [prompt for role, prompt in server.prompts if role == "repair"]
    first = judged_first(ended)
    assert first["status"] == "red"
    assert "exit code 0, but no tests were counted" in first["weakened"]
    if at_base == "test passes":
        assert ended.exit_code == 1
        assert "no tests were counted" in ended.last["reason"]
    else:
        assert ended.exit_code == 0, ended.err
        assert "no tests were counted" in repairs[0]
        assert "return number * 2" in git(repository, "show", ended.last["commit"])


async def test_fewer_tests_than_before_lose_when_only_the_source_was_changed(
    repository: Path,
) -> None:
    (repository / "kit/double.py").write_text(
        "CASES = [1, 2, 3]\n\n\ndef double(number):\n    return 3\n"
    )
    (repository / "tests/test_double.py").write_text(
        "import pytest\nfrom kit.double import CASES, double\n\n\n"
        "@pytest.mark.parametrize('case', CASES)\n"
        "def test_double(case):\n    assert double(case) == 2 * case\n"
    )
    git(repository, "add", "--all")
    git(repository, "-c", "user.name=u", "-c", "user.email=u@x", "commit", "-qm", "more")
    cheat = code("CASES = [1]\n\n\ndef double(number):\n    return 2\n")
    honest = code("CASES = [1, 2, 3]\n\n\ndef double(number):\n    return 2 * number\n")
    async with FakeTeamServer(
        planner=plan("kit/double.py"), coder=cheat, repair=honest, reviewer=ACCEPT
    ) as server:
        ended = await turbo(server, repository, "--candidates", "1", "tasks/add-double.md")
    assert ended.exit_code == 0, ended.err
    first = judged_first(ended)
    assert "fewer tests ran than before (1, not 3)" in first["weakened"]
    assert "2 * number" in git(repository, "show", ended.last["commit"])


async def test_what_a_test_run_leaves_at_the_place_of_a_file_is_not_followed(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The code under test may put a link where the next round writes."""
    monkeypatch.setenv("SANDBOX", "off")
    outside = tmp_path / "outside.py"
    outside.write_text("mine\n")
    planting = code(
        "import os\nfrom pathlib import Path\n\nhere = Path(__file__)\nhere.unlink()\n"
        f"here.symlink_to({str(outside)!r})\n\n\ndef double(number):\n    return 0\n"
    )
    async with FakeTeamServer(
        planner=plan("kit/double.py"), coder=planting, repair=RIGHT, reviewer=ACCEPT
    ) as server:
        ended = await turbo(server, repository, "--candidates", "1", "tasks/add-double.md")
    assert ended.exit_code == 0, ended.err
    assert outside.read_text() == "mine\n"
    mode = git(repository, "ls-tree", ended.last["commit"], "kit/double.py").split()[0]
    assert mode == "100644"
