"""The coder: how long an answer may be, what is shown, and what is asked again."""

from __future__ import annotations

from pathlib import Path

import pytest
from fakes.team_server import FakeTeamServer, code
from team.open_team import open_team

from agent.core.errors import BadAnswer
from agent.core.sampling import CODING
from agent.team.coder import Job, write_step
from agent.team.state import Step
from agent.team.task_file import Task

TASK = Task(title="T", body="B", source="t.md")
STEP = Step(path="kit/a.py", action="edit", instruction="Do it.")
LINES = [f"value_{number} = {number}" for number in range(60)]
FILE = "\n".join(LINES) + "\n"


def job(content: str | None, **more: str) -> Job:
    files = {STEP.path: content, **more}
    return Job(task=TASK, step=STEP, files=files, sampling=CODING, candidate=0)


def block(search: str, replace: str) -> str:
    return f"<<<<<<< SEARCH\n{search}\n=======\n{replace}\n>>>>>>> REPLACE\n"


@pytest.mark.parametrize(
    ("content", "expected"),
    [(None, 100), ("x = 1\n", 263), (FILE, len(FILE) * 13 // 10 + 256)],
)
async def test_a_whole_file_may_be_answered_as_long_as_it_is_and_more(
    repository: Path, content: str | None, expected: int
) -> None:
    async with (
        FakeTeamServer(coder=code("x = 2\n")) as server,
        open_team(
            server, repository, turbo_whole_file_tokens=5000, turbo_answer_tokens=100
        ) as team,
    ):
        assert await write_step(job(content), team) == "x = 2\n"
        assert server.completions[0]["n_predict"] == expected


async def test_an_answer_may_be_as_long_as_the_context_leaves_room(repository: Path) -> None:
    async with (
        FakeTeamServer(coder=code("x = 2\n"), context=1800) as server,
        open_team(server, repository, turbo_answer_tokens=4000) as team,
    ):
        await write_step(job("x = 1\n"), team)
        sent = server.completions[0]
        assert 200 < sent["n_predict"] < 1800
        assert sent["n_predict"] + len(sent["prompt"]) <= 1800


async def test_a_file_that_cannot_be_answered_whole_is_not_asked_for(repository: Path) -> None:
    async with (
        FakeTeamServer(coder="", context=3000) as server,
        open_team(server, repository, turbo_whole_file_tokens=5000) as team,
    ):
        with pytest.raises(BadAnswer, match="does not fit") as caught:
            await write_step(job(FILE + FILE), team)
        assert "LLAMACPP_CONTEXT_SIZE" in caught.value.fix
        assert server.completions == []


async def test_a_block_that_does_not_apply_is_asked_again_for_the_file_as_it_is_now(
    repository: Path,
) -> None:
    answers = [
        block(LINES[5], "value_5 = 'new'") + block("value_x = 1", "") + block("value_y = 2", ""),
        block(LINES[6], "value_6 = 'mended'"),
        block(LINES[7], "value_7 = 'mended too'"),
    ]
    async with (
        FakeTeamServer(coder=lambda prompt, earlier: answers[earlier]) as server,
        open_team(server, repository, shown={STEP.path: FILE}, turbo_whole_file_tokens=0) as team,
    ):
        content = await write_step(job(FILE), team)
        asked = [prompt for _, prompt in server.prompts]
    assert content == FILE.replace("= 5\n", "= 'new'\n", 1).replace(
        "value_6 = 6\n", "value_6 = 'mended'\n"
    ).replace("value_7 = 7\n", "value_7 = 'mended too'\n")
    assert "value_5 = 'new'" not in asked[0]
    assert "value_5 = 'new'" in asked[1]
    assert "value_5 = 5" not in asked[1]
    assert "value_6 = 'mended'" in asked[2]


@pytest.mark.parametrize("shown", [FILE, FILE.replace("\n", "\r\n")])
async def test_a_file_is_not_shown_twice_for_its_line_ends(repository: Path, shown: str) -> None:
    for content in (FILE, FILE.replace("\n", "\r\n")):
        async with (
            FakeTeamServer(coder=code("x = 2\n")) as server,
            open_team(
                server, repository, shown={STEP.path: shown}, turbo_whole_file_tokens=5000
            ) as team,
        ):
            written = await write_step(job(content, **{"kit/b.py": "b = 1\r\n"}), team)
            (prompt,) = [prompt for _, prompt in server.prompts]
        assert "value_1" not in prompt
        assert "### kit/b.py" in prompt
        assert "\r" not in prompt
        assert written.endswith("\r\n") == content.endswith("\r\n")
