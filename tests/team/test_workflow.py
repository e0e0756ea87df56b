"""Whole runs of the command with scripted answers: what happens to the repository, and the code."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path

import pytest
from fakes.http_server import Call, Responder
from fakes.llama_server import KEY
from fakes.team_server import ACCEPT, FakeTeamServer, code, plan, revise
from team.conftest import TASK, Outcome, git, run_turbo

RIGHT = code("def double(number):\n    return number * 2\n")
WRONG = code("def double(number):\n    return number * 3\n")
PLAN = plan("kit/double.py", "Add def double(number): return twice the number")


def commit_all(repository: Path) -> None:
    git(repository, "add", "--all")
    git(repository, "-c", "user.name=u", "-c", "user.email=u@x", "commit", "-qm", "more")


async def turbo(
    server: FakeTeamServer, repository: Path, *arguments: str, rounds: int = 3
) -> Outcome:

    return await run_turbo(
        "run",
        "--json",
        *arguments,
        cwd=repository,
        LLAMACPP_URL=server.url,
        LLAMACPP_API_KEY=KEY,
        TURBO_ROUNDS=str(rounds),
    )


def branches(repository: Path) -> list[str]:
    return git(repository, "branch", "--format=%(refname:short)").splitlines()


async def test_a_green_candidate_that_the_reviewer_accepts_becomes_a_commit(
    repository: Path,
) -> None:
    async with FakeTeamServer(planner=PLAN, coder=RIGHT, reviewer=ACCEPT) as server:
        ended = await turbo(server, repository, "tasks/add-double.md")
    assert ended.exit_code == 0, ended.err
    last = ended.last
    assert last["event"] == "run_finished"
    assert last["status"] == "accepted"
    assert last["tests"] == {"exit_code": 0}
    tokens = last["tokens"]
    assert tokens["computed"] + tokens["cached"] == tokens["prompt"] > 0
    assert git(repository, "rev-parse", last["branch"]) == last["commit"]
    assert last["branch"].startswith("turbo/add-a-double-helper-")
    message = git(repository, "show", "-s", "--format=%B", last["commit"])
    assert message.startswith("Add a double helper\n")
    assert ended.named("run_started")[0]["run"] in message
    changed = git(repository, "show", "--format=", "--name-only", last["commit"])
    assert changed == "kit/double.py"
    assert git(repository, "status", "--porcelain") == ""
    assert git(repository, "rev-parse", "HEAD") == git(
        repository, "rev-parse", f"{last['commit']}^"
    )
    journal = repository / ".git" / ".turbo" / "runs" / ended.named("run_started")[0]["run"]
    assert "run_finished" in (journal / "journal.jsonl").read_text()


@pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")
async def test_tests_run_in_a_sandbox_where_there_is_one(repository: Path, tmp_path: Path) -> None:
    outside = tmp_path / "written"
    command = f"sh -c 'touch {outside}; pytest -q -p no:cacheprovider'"
    async with FakeTeamServer(planner=PLAN, coder=RIGHT, reviewer=ACCEPT) as server:
        ended = await turbo(server, repository, "--test", command, "tasks/add-double.md")
    assert ended.exit_code == 0, ended.err
    assert not outside.exists()
    assert "SANDBOX" not in ended.err


async def test_without_a_sandbox_it_is_said_or_refused(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools = {Path(shutil.which(name) or "").parent for name in ("git", "sh")}
    folder = repository.parent / "tools"
    folder.mkdir()
    for each in tools:
        for program in each.iterdir():
            if program.name != "bwrap" and not (folder / program.name).exists():
                (folder / program.name).symlink_to(program)
    monkeypatch.setenv("PATH", str(folder))
    async with FakeTeamServer(planner=PLAN, coder=RIGHT, reviewer=ACCEPT) as server:
        ended = await turbo(server, repository, "tasks/add-double.md")
        assert ended.exit_code == 0, ended.err
        assert ended.err.count("NO SANDBOX: bubblewrap is not installed") == 1
        monkeypatch.setenv("SANDBOX", "require")
        asked = len(server.prompts)
        refused = await turbo(server, repository, "tasks/add-double.md")
        assert len(server.prompts) == asked
    assert refused.exit_code == 2
    assert "SANDBOX=require, but bubblewrap is not installed" in refused.err
    assert "Install bubblewrap" in refused.err


async def test_nothing_is_traced_to_anybody(repository: Path) -> None:
    """langgraph would send whole prompts away when the user's shell has tracing on."""
    async with (
        FakeTeamServer(planner=PLAN, coder=RIGHT, reviewer=ACCEPT) as server,
        FakeTeamServer() as collector,
    ):
        ended = await run_turbo(
            "run",
            "tasks/add-double.md",
            cwd=repository,
            LLAMACPP_URL=server.url,
            LLAMACPP_API_KEY=KEY,
            LANGSMITH_TRACING="true",
            LANGCHAIN_TRACING_V2="true",
            LANGSMITH_API_KEY="x",
            LANGSMITH_ENDPOINT=collector.url,
            LANGCHAIN_ENDPOINT=collector.url,
        )
        assert ended.exit_code == 0, ended.err
        assert collector.calls == []


async def test_identical_answers_are_tested_once(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SANDBOX", "off")  # the log lies outside
    log = tmp_path / "tests-ran"
    command = f"sh -c 'echo x >> {log}; pytest -q -p no:cacheprovider'"
    async with FakeTeamServer(planner=PLAN, coder=RIGHT, reviewer=ACCEPT) as server:
        ended = await turbo(server, repository, "--test", command, "tasks/add-double.md")
    assert ended.exit_code == 0, ended.err
    assert log.read_text() == "x\n" * 2  # once before any change


async def test_the_tests_run_once_before_all_tasks_of_a_session(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SANDBOX", "off")  # the log lies outside
    log = tmp_path / "tests-ran"
    command = f"sh -c 'ls kit >> {log}; pytest -q -p no:cacheprovider'"
    (repository / "again.md").write_text(TASK.replace("Add a", "Add another"))
    async with FakeTeamServer(planner=PLAN, coder=RIGHT, reviewer=ACCEPT) as server:
        ended = await turbo(
            server, repository, "--candidates", "1", "--test", command,
            "tasks/add-double.md", "again.md",
        )  # fmt: skip
    assert ended.exit_code == 0, ended.err
    assert log.read_text().split().count("other.py") == 3
    assert log.read_text().split().count("double.py") == 2


async def test_the_best_red_candidate_is_repaired_with_the_failing_output(
    repository: Path,
) -> None:
    async with FakeTeamServer(planner=PLAN, coder=WRONG, repair=RIGHT, reviewer=ACCEPT) as server:
        ended = await turbo(server, repository, "--candidates", "2", "tasks/add-double.md")
        repairs = [prompt for role, prompt in server.prompts if role == "repair"]
    assert ended.exit_code == 0, ended.err
    assert ended.last["status"] == "accepted"
    assert "assert 6 == 4" in repairs[0]
    assert "number * 3" in repairs[0]
    assert "/worktrees/" not in repairs[0]


async def test_a_revision_goes_back_to_the_coder_with_the_comments(repository: Path) -> None:
    def review(prompt: str, earlier: int) -> str:
        return revise("Say what it does.", "kit/double.py") if earlier == 0 else ACCEPT

    documented = code('def double(number):\n    """Twice."""\n    return number * 2\n')
    async with FakeTeamServer(
        planner=PLAN, coder=RIGHT, repair=documented, reviewer=review
    ) as server:
        ended = await turbo(server, repository, "--candidates", "1", "tasks/add-double.md")
        repairs = [prompt for role, prompt in server.prompts if role == "repair"]
    assert ended.exit_code == 0, ended.err
    assert "kit/double.py:1 error: Say what it does." in repairs[0]
    assert "Twice." in git(repository, "show", ended.last["commit"])


async def test_a_reviewer_that_never_accepts_ends_as_rejected_without_a_branch(
    repository: Path,
) -> None:
    async with FakeTeamServer(
        planner=PLAN, coder=RIGHT, repair=RIGHT, reviewer=revise("I do not like it.")
    ) as server:
        ended = await turbo(server, repository, "--candidates", "1", "tasks/add-double.md")
    assert ended.exit_code == 1
    assert ended.last["status"] == "rejected"
    assert "I do not like it." in ended.last["reason"]
    assert branches(repository) == ["main"]


async def test_the_comments_outlive_a_round_that_writes_nothing_usable(repository: Path) -> None:
    async with FakeTeamServer(
        planner=PLAN,
        coder=RIGHT,
        repair=lambda prompt, earlier: RIGHT if earlier else "I cannot do that.",
        reviewer=revise("Say what it does.", "kit/double.py"),
    ) as server:
        ended = await turbo(server, repository, "--candidates", "1", "tasks/add-double.md")
        repairs = [prompt for role, prompt in server.prompts if role == "repair"]
        reviews = [prompt for role, prompt in server.prompts if role == "reviewer"]
    assert ended.exit_code == 1
    assert ended.last["status"] == "rejected"
    assert "Say what it does." in ended.last["reason"]
    assert len(repairs) == 2
    assert all("kit/double.py:1 error: Say what it does." in prompt for prompt in repairs)
    assert len(reviews) == 1
    tested = [(x["status"], x["summary"]) for x in ended.named("candidate_verified")[1:]]
    assert [status for status, _ in tested] == ["invalid", "invalid"]
    assert tested[1][1] == "the answer changes nothing"


async def test_an_answer_that_changes_nothing_is_invalid_and_not_tested(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SANDBOX", "off")  # the log lies outside
    log = tmp_path / "tests-ran"
    (repository / "pyproject.toml").write_text(
        "[tool.ruff]\nline-length = 90\n[tool.ruff.format]\n"
    )
    commit_all(repository)
    task = repository / "other.md"
    task.write_text(
        f"---\ntitle: Keep it\nfiles: [kit/other.py]\ntest: touch {log}\n---\nKeep it.\n"
    )
    same = "def one():\n    return 1\n"
    unlike = "def one( ):\n  return 1\n"
    async with FakeTeamServer(
        planner=plan("kit/other.py"),
        coder=lambda prompt, earlier: code(unlike if earlier else same),
    ) as server:
        ended = await turbo(server, repository, "--candidates", "2", "other.md", rounds=1)
    assert ended.exit_code == 1
    assert "the answer changes nothing" in ended.last["reason"]
    assert [x["status"] for x in ended.named("candidate_verified")] == ["invalid", "invalid"]
    assert not log.exists()


async def test_the_commit_holds_what_was_tested_and_nothing_that_tests_leave(
    repository: Path,
) -> None:
    command = "sh -c 'pytest -q -p no:cacheprovider && echo junk >> kit/double.py'"
    async with FakeTeamServer(planner=PLAN, coder=RIGHT, reviewer=ACCEPT) as server:
        ended = await turbo(server, repository, "--test", command, "tasks/add-double.md")
    assert ended.exit_code == 0, ended.err
    committed = git(repository, "show", f"{ended.last['commit']}:kit/double.py")
    assert committed == "def double(number):\n    return number * 2"


async def test_what_linters_say_of_a_green_candidate_is_told(repository: Path) -> None:
    (repository / "pyproject.toml").write_text("[tool.ruff]\n")
    commit_all(repository)
    unclean = code(
        "def double(number):\n    return number * 2\n\n\ndef other():\n    return undefined\n"
    )
    async with FakeTeamServer(planner=PLAN, coder=unclean, reviewer=ACCEPT) as server:
        ended = await turbo(server, repository, "--candidates", "1", "tasks/add-double.md")
    assert ended.exit_code == 0, ended.err
    (tested,) = ended.named("candidate_verified")
    assert tested["status"] == "green"
    assert "undefined" in tested["lint"]


async def test_a_diff_that_no_context_holds_fails_the_task_and_not_the_session(
    repository: Path,
) -> None:
    long = code(
        "".join(f"# {n}\n" for n in range(1000)) + "def double(number):\n    return number * 2\n"
    )
    async with FakeTeamServer(planner=PLAN, coder=long, context=6000) as server:
        ended = await turbo(server, repository, "--candidates", "1", "tasks/add-double.md")
    assert ended.exit_code == 1
    assert ended.last["status"] == "rejected"
    assert "a slot serves 6000" in ended.last["reason"]
    assert "LLAMACPP_CONTEXT_SIZE" in ended.last["reason"]


async def test_a_task_too_long_for_the_context_does_not_end_the_session(
    repository: Path,
) -> None:
    short = "---\ntitle: Add double\ntest: 'true'\n---\nAdd it.\n"
    (repository / "1.md").write_text(short.replace("Add it.", "Add it. " * 600))
    (repository / "2.md").write_text(short)
    async with FakeTeamServer(planner=PLAN, coder=RIGHT, reviewer=ACCEPT, context=4500) as server:
        ended = await turbo(server, repository, "1.md", "2.md")
    assert ended.exit_code == 1
    first, second = ended.named("run_finished")[:2]
    assert first["status"] == "failed"
    assert "a slot serves 4500" in first["reason"]
    assert second["status"] == "accepted"


async def test_every_candidate_and_every_request_is_counted(repository: Path) -> None:
    async with FakeTeamServer(
        planner=lambda prompt, earlier: PLAN if earlier else "no plan",
        coder=lambda prompt, earlier: "I cannot do that." if earlier else WRONG,
        repair=RIGHT,
        reviewer=ACCEPT,
    ) as server:
        ended = await turbo(server, repository, "--candidates", "2", "tasks/add-double.md")
        sent = sum(len(x["prompt"]) for x in server.completions)
    assert ended.exit_code == 0, ended.err
    assert ended.last["candidates"]["started"] == 4
    tokens = ended.last["tokens"]
    assert tokens["prompt"] == tokens["computed"] + tokens["cached"] == sent


async def test_an_accepting_reviewer_cannot_save_red_tests(repository: Path) -> None:
    async with FakeTeamServer(planner=PLAN, coder=WRONG, repair=WRONG, reviewer=ACCEPT) as server:
        ended = await turbo(server, repository, "--candidates", "2", "tasks/add-double.md")
        asked = {role for role, _ in server.prompts}
    assert ended.exit_code == 1
    assert ended.last["status"] == "failed"
    assert "after 3 rounds" in ended.last["reason"]
    assert "1 failed" in ended.last["reason"]
    assert "reviewer" not in asked
    assert branches(repository) == ["main"]


async def test_nonsense_for_a_whole_run_ends_as_failed_with_the_reason(repository: Path) -> None:
    async with FakeTeamServer(planner=PLAN, coder="I cannot do that.", repair="No.") as server:
        ended = await turbo(server, repository, "tasks/add-double.md")
    assert ended.exit_code == 1
    assert ended.last["status"] == "failed"
    assert "No usable answer after 3 rounds" in ended.last["reason"]
    assert branches(repository) == ["main"]
    assert git(repository, "worktree", "list").count("\n") == 0


async def test_a_bad_plan_is_asked_again_once_with_the_reason(repository: Path) -> None:
    def planner(prompt: str, earlier: int) -> str:
        return plan("../evil.py") if earlier == 0 else PLAN

    task = TASK.replace("files: [kit/double.py]\n", "")
    async with FakeTeamServer(planner=planner, coder=RIGHT, reviewer=ACCEPT) as server:
        (repository / "free.md").write_text(task)
        ended = await turbo(server, repository, "free.md")
        plans = [prompt for role, prompt in server.prompts if role == "planner"]
    assert ended.exit_code == 0, ended.err
    assert len(plans) == 2
    assert "'../evil.py' leaves the repository" in plans[1]
    assert plans[1].startswith(plans[0].removesuffix("<assistant>"))


async def test_two_bad_plans_end_the_run(repository: Path) -> None:
    (repository / "free.md").write_text(TASK.replace("files: [kit/double.py]\n", ""))
    async with FakeTeamServer(planner=plan("/etc/passwd")) as server:
        ended = await turbo(server, repository, "free.md")
    assert ended.exit_code == 1
    assert "No usable plan" in ended.last["reason"]


async def test_all_prompts_of_a_run_share_their_first_bytes(repository: Path) -> None:
    async with FakeTeamServer(planner=PLAN, coder=WRONG, repair=RIGHT, reviewer=ACCEPT) as server:
        await turbo(server, repository, "tasks/add-double.md")
        prompts = server.prompts
    shared = prompts[0][1].split("# Role: ")[0]
    assert "kit/double.py" in shared
    assert {role for role, _ in prompts} == {"planner", "coder", "repair", "reviewer"}
    assert all(prompt.startswith(shared) for _, prompt in prompts)
    coders = {prompt for role, prompt in prompts if role == "coder"}
    assert len(coders) == 1


async def test_without_tests_it_says_so_loudly(repository: Path) -> None:
    git(repository, "rm", "-rq", "tests")
    git(repository, "-c", "user.name=u", "-c", "user.email=u@x", "commit", "-qm", "no tests")
    (repository / "free.md").write_text(
        "---\ntitle: Add double\nfiles: [kit/double.py]\n---\nAdd it.\n"
    )
    async with FakeTeamServer(planner=PLAN, coder=RIGHT, reviewer=ACCEPT) as server:
        ended = await turbo(server, repository, "free.md")
    assert ended.exit_code == 0, ended.err
    assert ended.last["tests"] is None
    assert "NO TESTS FOUND" in ended.err


async def test_apply_moves_a_clean_branch_and_refuses_a_dirty_one(repository: Path) -> None:
    async with FakeTeamServer(planner=PLAN, coder=RIGHT, reviewer=ACCEPT) as server:
        (repository / "README.md").write_text("dirty\n")
        refused = await turbo(server, repository, "--apply", "tasks/add-double.md")
        assert refused.exit_code == 1
        assert refused.last["status"] == "accepted"
        assert "uncommitted changes" in refused.last["reason"]
        git(repository, "checkout", "--quiet", "--", "README.md")
        applied = await turbo(server, repository, "--apply", "tasks/add-double.md")
    assert applied.exit_code == 0, applied.err
    assert git(repository, "rev-parse", "main") == applied.last["commit"]
    assert (repository / "kit" / "double.py").is_file()


async def test_all_runs_what_is_not_done_yet(repository: Path) -> None:
    async with FakeTeamServer(planner=PLAN, coder=RIGHT, reviewer=ACCEPT) as server:
        first = await turbo(server, repository, "--all")
        asked = len(server.prompts)
        second = await turbo(server, repository, "--all")
        assert len(server.prompts) == asked
    assert first.exit_code == second.exit_code == 0
    assert len(first.named("run_finished")) == 1
    assert "done already" in second.err


async def test_a_dry_run_stops_after_the_plan(repository: Path) -> None:
    async with FakeTeamServer(planner=PLAN) as server:
        ended = await turbo(server, repository, "--dry-run", "tasks/add-double.md")
    assert ended.exit_code == 0, ended.err
    assert ended.last["status"] == "planned"
    assert ended.named("plan_ready")[0]["steps"][0]["path"] == "kit/double.py"
    assert branches(repository) == ["main"]


async def test_a_task_may_come_as_prose_or_from_standard_input(repository: Path) -> None:

    async with FakeTeamServer(planner=PLAN, coder=RIGHT, reviewer=ACCEPT) as server:
        prose = await turbo(server, repository, "--task", "Add double to kit/double.py")
        piped = await run_turbo(
            "run", "--json", "-",
            cwd=repository, stdin=TASK, LLAMACPP_URL=server.url, LLAMACPP_API_KEY=KEY,
        )  # fmt: skip
    assert prose.exit_code == piped.exit_code == 0, prose.err + piped.err
    assert len(branches(repository)) == 3


async def test_a_test_that_hangs_is_ended_and_counts_as_red(repository: Path) -> None:
    async with FakeTeamServer(planner=PLAN, coder=RIGHT, repair=RIGHT, reviewer=ACCEPT) as server:
        ended = await run_turbo(
            "run", "--json", "--test", "sleep 600", "--candidates", "1", "tasks/add-double.md",
            cwd=repository, LLAMACPP_URL=server.url, LLAMACPP_API_KEY=KEY,
            TURBO_TEST_TIMEOUT_S="0.3", TURBO_ROUNDS="1",
        )  # fmt: skip
    assert ended.exit_code == 1
    assert ended.last["tests"] == {"exit_code": None}
    assert "0.3 s" in ended.last["reason"]


async def test_a_test_command_that_is_not_there_is_named(repository: Path) -> None:
    async with FakeTeamServer(planner=PLAN, coder=RIGHT) as server:
        ended = await turbo(server, repository, "--test", "no-such-runner", "tasks/add-double.md")
    assert ended.exit_code == 1
    assert "no-such-runner cannot be started: not found" in ended.last["reason"]


@pytest.mark.parametrize("dirty", [False, True])
async def test_hooks_of_the_repository_never_run(repository: Path, dirty: bool) -> None:
    hooks = repository / ".git" / "hooks"
    hooks.mkdir(exist_ok=True)
    for name in ("pre-commit", "post-checkout", "post-commit", "reference-transaction"):
        (hooks / name).write_text(f"#!/bin/sh\ntouch {repository}/RAN\n")
        (hooks / name).chmod(0o755)
    if dirty:
        (repository / "kit" / "other.py").write_text("dirty\n")
    async with FakeTeamServer(planner=PLAN, coder=RIGHT, reviewer=ACCEPT) as server:
        ended = await turbo(server, repository, "tasks/add-double.md")
    assert ended.exit_code == 0, ended.err
    assert not (repository / "RAN").exists()
    assert ((repository / "kit" / "other.py").read_text() == "dirty\n") is dirty
    assert list((repository / ".git").glob("worktrees/*")) == []


OTHER_PLAN = plan("kit/double.py", "Add def double(number): add the number to itself")


def second_time_right(prompt: str, earlier: int) -> str:
    return RIGHT if "to itself" in prompt else WRONG


async def test_another_plan_is_tried_when_no_candidate_of_the_first_passes(
    repository: Path,
) -> None:
    async with FakeTeamServer(
        planner=lambda _, earlier: OTHER_PLAN if earlier else PLAN,
        coder=second_time_right,
        repair=WRONG,
        reviewer=ACCEPT,
    ) as server:
        ended = await turbo(
            server, repository, "--candidates", "2", "tasks/add-double.md", rounds=2
        )
        seeds = [body["seed"] for body in server.completions]
    assert ended.exit_code == 0, ended.err
    assert [event["number"] for event in ended.named("plan_ready")] == [1, 2]
    started = ended.named("candidate_started")
    assert [event["round"] for event in started] == [0, 0, 1, 1, 2, 2]
    assert len({event["seed"] for event in started}) == 6
    assert len(set(seeds)) >= 7
    assert git(repository, "show", f"{ended.last['commit']}:kit/double.py") == (
        "def double(number):\n    return number * 2"
    )


async def test_the_same_plan_again_ends_the_run_with_the_first_reason(repository: Path) -> None:
    async with FakeTeamServer(planner=PLAN, coder=WRONG, repair=WRONG, reviewer=ACCEPT) as server:
        ended = await turbo(
            server, repository, "--candidates", "1", "tasks/add-double.md", rounds=1
        )
    assert ended.exit_code == 1
    assert ended.last["status"] == "failed"
    assert ended.last["reason"].startswith("No candidate passed the tests after 1 round: ")
    assert "led nowhere" in ended.last["reason"]
    assert branches(repository) == ["main"]


async def test_a_plan_whose_candidates_pass_is_not_given_up_for_a_review(repository: Path) -> None:
    async with FakeTeamServer(
        planner=lambda _, earlier: OTHER_PLAN if earlier else PLAN,
        coder=RIGHT,
        repair=RIGHT,
        reviewer=revise("No."),
    ) as server:
        ended = await turbo(
            server, repository, "--candidates", "1", "tasks/add-double.md", rounds=1
        )
        roles = [role for role, _ in server.prompts]
    assert ended.last["status"] == "rejected"
    assert roles.count("planner") == 1


async def test_a_review_that_refuses_goes_on_with_the_next_green_one(repository: Path) -> None:
    plain = code("def double(number):\n    return number + number\n")
    async with FakeTeamServer(
        planner=PLAN,
        coder=lambda _, earlier: plain if earlier else RIGHT,
        reviewer=lambda prompt, _: ACCEPT if "number + number" in prompt else revise("No."),
    ) as server:
        ended = await turbo(server, repository, "--candidates", "2", "tasks/add-double.md")
    assert ended.exit_code == 0, ended.err
    assert {event["round"] for event in ended.named("candidate_started")} == {0}
    assert "number + number" in git(repository, "show", ended.last["commit"])
    assert ended.named("review_ready")[-1]["verdict"] == "accept"


async def test_an_accepted_one_ends_the_tests_and_the_writing_of_all_others(
    repository: Path,
) -> None:
    slow = code("def double(number):\n    return number * 2  # slow\n")
    command = "sh -c 'grep -q slow kit/double.py && sleep 100; pytest -q -p no:cacheprovider'"
    async with FakeTeamServer(
        planner=PLAN, coder=lambda _, earlier: RIGHT if earlier == 1 else slow, reviewer=ACCEPT
    ) as server:
        ended = await turbo(
            server, repository, "--candidates", "2", "--test", command, "tasks/add-double.md"
        )
        reviews = [prompt for role, prompt in server.prompts if role == "reviewer"]
    assert ended.exit_code == 0, ended.err
    assert ended.last["wall_s"] < 60
    states = [event["status"] for event in ended.named("candidate_verified")]
    assert states == ["green", "cancelled"]
    assert len(reviews) == 1


async def test_identical_answers_are_reviewed_once(repository: Path) -> None:
    async with FakeTeamServer(
        planner=PLAN, coder=RIGHT, repair=RIGHT, reviewer=revise("No.")
    ) as server:
        await turbo(server, repository, "--candidates", "3", "tasks/add-double.md", rounds=1)
        reviews = [prompt for role, prompt in server.prompts if role == "reviewer"]
    assert len(reviews) == 1


async def test_independent_steps_are_written_at_the_same_time(repository: Path) -> None:
    steps = [
        {"path": f"kit/{name}.py", "action": "create", "instruction": f"Write {name}.py",
         "depends_on": needs}
        for name, needs in (("double", []), ("other", []), ("third", [1]))
    ]  # fmt: skip
    both = asyncio.Event()
    waiting = []

    class Together(FakeTeamServer):
        """Answers the first two coders only when both have asked."""

        async def _dispatch(self, call: Call, reply: Responder) -> None:
            prompt = "".join(map(chr, call.body["prompt"])) if "/completion" in call.path else ""
            if "# Role: coder" in prompt and "third.py" not in prompt:
                waiting.append(prompt)
                if len(waiting) == 2:
                    both.set()
                async with asyncio.timeout(20):
                    await both.wait()
            await super()._dispatch(call, reply)

    task = repository / "tasks" / "three.md"
    task.write_text("---\ntitle: Three files\n---\nWrite them.\n")
    async with Together(
        planner=json.dumps({"summary": "S", "steps": steps, "read": []}),
        coder=lambda prompt, _: RIGHT if "Write double.py" in prompt else code("one = 1\n"),
        reviewer=ACCEPT,
    ) as server:
        ended = await turbo(server, repository, "--candidates", "1", "tasks/three.md")
        third = next(p for role, p in server.prompts if role == "coder" and "Write third" in p)
    assert ended.exit_code == 0, ended.err
    assert "number * 2" in third
    changed = git(repository, "show", "--format=", "--name-only", ended.last["commit"])
    assert changed.split() == ["kit/double.py", "kit/other.py", "kit/third.py"]
