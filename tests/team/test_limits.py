"""What is out of proportion has a bound: files, lines, answers, output, tasks.

Where memory is at stake the system bounds it, and what takes more dies. Where time is, the limit
of every test does: what stands here took minutes to hours, or for ever, without the bound.
"""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes.llama_server import KEY
from fakes.team_server import ACCEPT, FakeTeamServer, code, plan
from team.conftest import TASK, git, run_turbo

from agent.core import command
from agent.core.errors import EditError
from agent.team.answer_parser import parse_whole_file
from agent.team.evidence import last_line, summarise_failure
from agent.team.repo_context import list_files, relevant_files
from agent.team.report import describe_session
from agent.team.result import Ledger, RunResult
from agent.team.runs import KEPT_RUNS, tidy_up
from agent.team.state import Candidate
from agent.team.tally import read_tally
from agent.team.toolchain import detect_test_command
from agent.team.verification import run_tests

MIB = 1 << 20
RIGHT = code("def double(number):\n    return number * 2\n")
PLAN = plan("kit/double.py", "Add def double(number): return twice the number")


@pytest.mark.parametrize(
    "output",
    [
        "\n" * 200_000,
        " " * 200_000,
        "\r" * 200_000,
        "\x1b]" * 100_000,
        "Tests: " + "0" * 200_000,
        "Tests:" + " " * 200_000,
        "=" * 200_000,
        "1" * 200_000 + " failed in 1s",
        "in 1" * 50_000,
        "FAIL: a\n" * 25_000,
        "Traceback (most recent call last)\n" * 6_000,
    ],
    ids=lambda text: repr(text[:8]),
)
def test_whatever_tests_print_is_read_in_time_that_grows_with_its_length(output: str) -> None:
    assert len(summarise_failure(output, limit_chars=1200)) <= 1200
    assert len(last_line(output)) <= 240
    assert read_tally(output) is None


def test_a_number_of_failures_that_no_suite_has_is_none() -> None:
    digits = "9" * 5_000
    for output in (
        f"{digits} failed in 1.0s",
        f"Tests: {digits} failed, 1 total",
        f"test result: FAILED. 1 passed; {digits} failed",
        f"Ran 3 tests in 1s\n\nFAILED (failures={digits})",
    ):
        tally = read_tally(output)
        assert tally is None or tally.failures == 0
        assert summarise_failure(output, limit_chars=1200)


def test_what_a_runner_says_of_itself_is_kept_short() -> None:
    tally = read_tally("Ran 3 tests in 1s\n\nFAILED (failures=2) " + "x" * 100_000)
    assert tally is not None
    assert (tally.failures, len(tally.line)) == (2, 240)


async def test_tests_that_print_for_ever_are_ended_long_before_their_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "_FLOOD", MIB)
    report = await run_tests(["yes"], tmp_path, checkout=tmp_path, timeout_s=3600)
    assert not report.green
    assert not report.completed
    assert report.summary == "ended for more than 1 MiB of output"
    assert len(report.result.output) < 300_000


def test_of_many_files_that_the_prose_may_mean_only_some_are_looked_at() -> None:
    files = [f"src/d{n}/helper.py" for n in range(50_000)]
    prose = "The helper in src/d777/helper.py is wrong. " + "Nothing else is. " * 50_000
    found = relevant_files(files, prose=prose, test_command=["pytest", "src/d9/helper.py::test"])
    assert found[:2] == ["src/d9/helper.py", "src/d777/helper.py"]
    assert len(found) == 64


def test_a_name_that_no_plan_can_have_is_not_listed() -> None:
    deep = "d/" * 1_500 + "x.py"
    assert list_files(["a.py", deep]) == ["a.py"]
    assert "d/d/d/ (1 files)" in list_files([deep, *(f"f{n}.py" for n in range(100))])


@pytest.mark.parametrize("path", ["a.py", "a.md", "a.txt"])
@pytest.mark.parametrize("part", ["```\n```\n", "```python\nx = 1\n```\n", "```\n~~~\n"])
def test_an_answer_of_nothing_but_code_blocks_is_refused(part: str, path: str) -> None:
    with pytest.raises(EditError, match="more than 2000 fences"):
        parse_whole_file(part * (1_900_000 // len(part)), path=path, previous="x = 1\n" * 150_000)


@pytest.fixture
def deep(tmp_path: Path) -> Iterator[Path]:
    """A folder that may become too deep for pytest to remove it."""
    yield tmp_path
    subprocess.run(["rm", "-rf", tmp_path], check=True)


def test_a_suite_is_found_below_more_folders_than_a_recursion_reaches(deep: Path) -> None:
    folder = str(deep / "tests")
    Path(folder).mkdir()
    for _ in range(1_500):
        folder += "/d"
        Path(folder).mkdir()
    assert detect_test_command(deep) is None
    Path(folder, "test_deep.py").touch()
    found = detect_test_command(deep)
    assert found is not None
    assert found[0] == "pytest"


async def test_a_task_that_comes_without_end_is_refused(repository: Path) -> None:
    ended = await run_turbo("run", "-", cwd=repository, stdin=b"x" * 1_000_001)
    assert ended.exit_code == 2
    assert "-: is larger than 1000000 bytes" in ended.err


LIMITED = f"""
import resource, sys
resource.setrlimit(resource.RLIMIT_DATA, ({320 * MIB}, {320 * MIB}))
from agent.cli import console
sys.exit(console(sys.argv[1:]))
"""
SUITE = """
def test_noise(capfd):
    with capfd.disabled():
        print("0" * 10_000_000)
        print("\\n" * 10_000_000)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_DATA counts all memory on Linux only")
async def test_a_run_among_large_files_and_long_lines_takes_no_more_memory(
    repository: Path,
) -> None:
    assert resource.getrlimit(resource.RLIMIT_DATA)[1] == resource.RLIM_INFINITY
    with (repository / "kit" / "large.py").open("wb") as file:
        for _ in range(250):
            file.write(b"x = 1\n" * (MIB // 6))
    (repository / "kit" / "long.py").write_text("x = '" + "y" * 10 * MIB + "'\n")
    (repository / "tests" / "test_noise.py").write_text(SUITE)
    prose = "Leave kit/large.py and kit/long.py as they are."
    (repository / "task.md").write_text(TASK.replace("tests/", "") + prose + "\n")
    git(repository, "add", "--all")
    git(repository, "-c", "user.name=u", "-c", "user.email=u@h", "commit", "-qm", "large")
    async with FakeTeamServer(planner=PLAN, coder=RIGHT, reviewer=ACCEPT) as server:
        ended = await run_turbo(
            "run", "--candidates", "1", "--json", "task.md",
            cwd=repository, program=("-c", LIMITED),
            LLAMACPP_URL=server.url, LLAMACPP_API_KEY=KEY,
        )  # fmt: skip
        shown = max(len(prompt) for _, prompt in server.prompts)
    assert ended.exit_code == 0, ended.err
    assert ended.last["status"] == "accepted"
    assert shown < 20_000


def test_of_each_task_of_a_session_no_more_is_kept_than_is_shown() -> None:
    def candidate(index: int) -> Candidate:
        return Candidate(round=0, index=index, seed=1, status="green", diff="+ line\n" * 100_000)

    ledger = Ledger(waiting=["One"])
    both = [candidate(0), candidate(1)]
    ledger.enter(RunResult(status="accepted", exit_code=0, candidates=both, chosen=both[1]))
    (kept,) = ledger.results
    assert kept.chosen is not None
    assert len(kept.chosen.diff) < 51_000
    assert kept.chosen.diff.splitlines()[-1] == "... and 92858 more lines"
    assert [(x.status, x.diff) for x in kept.candidates] == [("green", ""), ("green", "")]


def test_after_many_tasks_the_last_lines_name_those_that_need_a_look() -> None:
    good = RunResult(status="accepted", exit_code=0, task="Good", run="r1")
    bad = RunResult(status="failed", exit_code=1, task="Bad", run="r2")
    lines = describe_session(Ledger(waiting=["Later"], results=[good] * 998 + [bad]))
    assert lines == ["\n998 of 1000 tasks succeeded", "failed: Bad (r2)", "not run: Later"]


def test_a_session_of_many_tasks_keeps_the_journals_of_all(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    names = [f"20260101-000000-{n:04}" for n in range(KEPT_RUNS + 20)]
    for name in names:
        (runs / name).mkdir(parents=True)
    tidy_up(runs / names[-1], kept=len(names))
    assert sorted(path.name for path in runs.iterdir()) == names
    tidy_up(runs / names[-1])
    assert sorted(path.name for path in runs.iterdir()) == names[-KEPT_RUNS:]
