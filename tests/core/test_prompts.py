"""Templates are filled strictly, and what is shared stays the same bytes."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.core.errors import PromptError
from agent.core.prompts import PromptBook, Template

VOLATILE = {
    "planner": {"correction": "<correction>"},
    "coder": {"step": "<step>", "answer_format": "<format>"},
    "repair": {"step": "<step>", "evidence": "<evidence>", "answer_format": "<format>"},
    "reviewer": {"diff": "<diff>", "tests": "<tests>"},
}


@pytest.fixture(scope="module")
def book() -> PromptBook:
    return PromptBook.load()


def test_a_missing_or_an_unused_value_is_an_error() -> None:
    template = Template("greeting", "Hello {{name}}")
    assert template.fill(name="you") == "Hello you"
    with pytest.raises(PromptError, match="greeting: no value for name"):
        template.fill()
    with pytest.raises(PromptError, match="no placeholder for age"):
        template.fill(name="you", age="7")


def test_a_value_is_never_filled_again() -> None:
    assert Template("t", "{{a}} {{b}}").fill(a="{{b}}", b="x") == "{{b}} x"


def test_a_folder_without_prompts_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(PromptError):
        PromptBook.load(tmp_path)


@pytest.mark.parametrize("role", sorted(VOLATILE))
def test_the_order_is_system_then_repository_task_role_and_volatile(
    book: PromptBook, role: str
) -> None:
    prompt = book.prompt(
        role, repository="REPOSITORY", task="TASK", files="FILES", **VOLATILE[role]
    )
    assert [message["role"] for message in prompt.messages] == ["system", "user"]
    places = [prompt.user.index(x) for x in ("REPOSITORY", "TASK", "FILES", "# Role: ")]
    assert places == sorted(places)
    assert all(prompt.user.index(value) > places[-1] for value in VOLATILE[role].values())


def test_all_roles_share_their_first_bytes_and_one_role_all_but_the_volatile_part(
    book: PromptBook,
) -> None:
    prompts = {
        role: book.prompt(role, repository="R", task="T", files="F", **values)
        for role, values in VOLATILE.items()
    }
    assert len({prompt.system for prompt in prompts.values()}) == 1
    shared = prompts["coder"].shared
    assert all(prompt.user.startswith(shared) for prompt in prompts.values())
    other = book.prompt(
        "coder", repository="R", task="T", files="F", step="another", answer_format="x"
    )
    assert other.user.startswith(prompts["coder"].shared + prompts["coder"].role)


def test_no_fixed_text_is_longer_than_it_may_be(book: PromptBook) -> None:
    # 1,200 tokens is the limit; no tokenizer makes more than one token of each character pair here
    for role in VOLATILE:
        fixed = book.template("system").text + book.template(role).fixed
        assert len(fixed) / 2 < 1200
