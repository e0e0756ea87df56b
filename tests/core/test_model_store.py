"""The model cache: who may remove what, and what goes first."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fakes.gguf_writer import BASIC, DATA, gguf

from agent.core import model_store
from agent.core.config import Settings, embedded_model, models_dir
from agent.core.errors import ModelError
from agent.core.gguf_names import GgufName
from agent.core.model_choice import chosen_model
from agent.core.model_lookup import to_be_changed, to_be_used
from agent.core.model_name import ModelName, name_in, parse_name
from agent.core.model_remains import remains
from agent.core.model_room import GIB, make_room, refuse_too_large
from agent.core.model_store import (
    Record,
    StoredFile,
    StoredModel,
    broken_files,
    changing,
    find_stored,
    folder_of,
    model_of,
    part_of,
    remove,
    stored_models,
    using,
    write_record,
)

FAKES = Path(__file__).parent.parent / "fakes"


@pytest.fixture(autouse=True)
def cache(own_cache: Path) -> Path:
    return own_cache


def store(
    repository: str = "acme/coder-GGUF", *, quantisation: str = "Q4_K_M", age: float = 0, data=None
) -> StoredModel:
    """Put a model into the cache that was used `age` seconds ago."""
    folder = folder_of(repository)
    folder.mkdir(parents=True, exist_ok=True)
    content = data or gguf({**BASIC, "general.name": repository + quantisation}, data=DATA)
    name = f"coder-{quantisation}"
    (folder / f"{name}.gguf").write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    file = StoredFile(name=f"{name}.gguf", size=len(content), sha256=digest)
    record = Record(
        repository=repository, commit="c", quantisation=quantisation, licence="", files=(file,)
    )
    model = write_record(folder, name, record)
    os.utime(folder / f"{name}.json", (model.used_at - age, model.used_at - age))
    return model


@contextmanager
def used_by_a_server(name: str) -> Iterator[subprocess.Popen[str]]:
    """A process that runs a llama-server on a stored model."""
    process = subprocess.Popen(
        [sys.executable, str(FAKES / "hold_server.py")],
        env={**os.environ, "LLAMACPP_MODEL_PATH": name, "LLAMACPP_PARALLEL": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert "server" in json.loads(process.stdout.readline())
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=10)


def test_the_least_recently_used_goes_first() -> None:
    old, new = store("a/old-GGUF", age=100), store("a/new-GGUF", age=1)
    removed = make_room(new.size + 10)
    assert [entry.what for entry in removed] == ["a/old-GGUF:Q4_K_M"]
    assert not old.path.exists()
    assert stored_models()[0].path == new.path
    assert make_room(new.size, needed=1)[0].what == "a/new-GGUF:Q4_K_M"
    assert stored_models() == []


def test_use_makes_it_the_last_to_go() -> None:
    first, second = store("a/first-GGUF", age=100), store("a/second-GGUF", age=50)
    with using(first.path):
        pass
    make_room(second.size)
    assert [each.path for each in stored_models()] == [first.path]


def test_a_model_that_a_server_runs_on_is_never_removed() -> None:
    running = store("a/running-GGUF", age=100, data=embedded_model().read_bytes())
    idle = store("a/idle-GGUF", age=1)
    with used_by_a_server("a/running-GGUF") as process:
        assert running.in_use
        assert not remove(running)
        removed = make_room(0)
        assert [entry.what for entry in removed] == ["a/idle-GGUF:Q4_K_M"]
        assert not idle.path.exists()
        with pytest.raises(ModelError, match="in use") as caught:
            refuse_too_large(Path("other"), 1000, running.size, 1000)
        assert "turbo server stop" in caught.value.fix
        process.kill()
        process.wait()
        assert not running.in_use
        assert remove(running)


def test_what_is_left_of_a_pull_goes_like_a_model() -> None:
    part = part_of(folder_of("a/b-GGUF"), "coder", "f" * 64)
    part.parent.mkdir(parents=True)
    part.write_bytes(b"x" * 1000)
    os.utime(part, (1, 1))
    new = store("a/new-GGUF")
    assert [entry.what for entry in make_room(new.size)] == ["a/b-GGUF:coder (not whole)"]
    assert not part.exists()


def test_files_of_the_user_are_nobody_elses(tmp_path: Path) -> None:
    models_dir().mkdir(parents=True)
    mine = models_dir() / "mine.gguf"
    mine.write_bytes(gguf())
    assert model_of(mine) is None
    make_room(0)
    with using(mine), using(tmp_path / "elsewhere.gguf"):
        assert mine.exists()


@pytest.mark.parametrize("record", ["", "[]", "{}", '{"repository": "a/b"}', "null"])
def test_a_model_without_a_right_record_is_none(record: str) -> None:
    model = store()
    (model.folder / f"{model.name}.json").write_text(record)
    assert stored_models() == []
    assert find_stored("acme/coder-GGUF", "Q4_K_M") is None


def test_damage_is_found_by_reading_all_of_it() -> None:
    model = store()
    assert broken_files(model) == []
    content = bytearray(model.path.read_bytes())
    content[-1] ^= 1
    model.path.write_bytes(content)
    assert broken_files(model) == [model.path]


def test_a_model_that_is_being_removed_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was there when it was chosen; then somebody held it alone to remove it."""
    model = store()
    monkeypatch.setattr(model_store, "_PATIENCE_S", 0.05)
    with (
        changing(model.folder, model.name),
        pytest.raises(ModelError, match="being removed") as caught,
        using(model.path),
    ):
        pytest.fail("it is used")
    assert "turbo models pull acme/coder-GGUF:Q4_K_M" in caught.value.fix


def meant(text: str) -> ModelName:
    name = parse_name(text)
    assert name is not None
    return name


def test_without_a_quantisation_the_usual_one_else_the_only_one() -> None:
    small = store(quantisation="Q2_K")
    assert to_be_used(meant("ACME/coder-gguf")) == small
    store(quantisation="Q8_0")
    with pytest.raises(ModelError, match="several are") as caught:
        to_be_used(meant("acme/coder-GGUF"))
    assert "acme/coder-GGUF:Q2_K, acme/coder-GGUF:Q8_0" in caught.value.message
    usual = store(quantisation="Q4_K_M")
    assert to_be_used(meant("acme/coder-GGUF")) == usual
    assert to_be_used(meant("acme/coder-GGUF:q2_k")) == small
    assert to_be_used(meant("acme/coder-GGUF:Q6_K")) is None


def test_what_is_removed_is_never_guessed() -> None:
    other = store(quantisation="Q8_0")
    with pytest.raises(ModelError, match="another than the usual one") as caught:
        to_be_changed(meant("acme/coder-GGUF"), "rm")
    assert caught.value.fix == "Name it: turbo models rm acme/coder-GGUF:Q8_0"
    assert to_be_changed(meant("acme/coder-GGUF:Q8_0"), "rm") == [other]
    usual = store(quantisation="Q4_K_M")
    with pytest.raises(ModelError, match="several are"):
        to_be_changed(meant("acme/coder-GGUF"), "rm")
    remove(other)
    assert to_be_changed(meant("acme/coder-GGUF"), "rm") == [usual]


def test_nothing_stays_of_a_model_that_was_removed() -> None:
    model = store()
    assert remove(model)
    assert list(models_dir().iterdir()) == []


def cut(model: StoredModel) -> None:
    os.truncate(model.path, 10)


def no_record(model: StoredModel) -> None:
    (model.folder / f"{model.name}.json").unlink()


def no_right_record(model: StoredModel) -> None:
    (model.folder / f"{model.name}.json").write_text("{")


@pytest.mark.parametrize("damage", [cut, no_record, no_right_record])
def test_a_damaged_model_takes_room_and_can_go(damage: Callable[[StoredModel], None]) -> None:
    model = store()
    with using(model.path):  # it leaves the lock of who has to do with it
        pass
    damage(model)
    (left,) = remains()
    assert (left.asked_as, left.unfinished) == (model.asked_as, False)
    with pytest.raises(ModelError, match="damaged in the model cache") as caught:
        to_be_used(meant("acme/coder-GGUF"))
    assert "turbo models pull acme/coder-GGUF" in caught.value.fix
    assert [entry.what for entry in make_room(0)] == ["acme/coder-GGUF:Q4_K_M (damaged)"]
    assert remains() == []
    assert not model.path.exists()


@pytest.mark.parametrize(
    ("text", "name", "wanted"),
    [
        ("qwen2.5-coder-1.5b", "qwen2.5-coder-1.5b", ""),
        ("qwen2.5-coder-1.5b:Q4_K_M", "qwen2.5-coder-1.5b", "Q4_K_M"),
        ("Qwen/Coder-GGUF:q8_0", "Qwen/Coder-GGUF", "q8_0"),
        ("Qwen/Coder-GGUF:file-q8_0.gguf", "Qwen/Coder-GGUF", "file-q8_0.gguf"),
    ],
)
def test_names(text: str, name: str, wanted: str) -> None:
    parsed = parse_name(text)
    assert parsed is not None
    assert (parsed.name, parsed.wanted, str(parsed)) == (name, wanted, text)


@pytest.mark.parametrize(
    "text",
    ["/a/b.gguf", "./x", "~/x", "a/b/c", "model.gguf", "models/model.gguf", "../a/b", "a:b:c", ""],
)
def test_paths(text: str) -> None:
    assert parse_name(text) is None


def test_a_file_that_is_there_is_never_taken_for_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "acme").mkdir()
    (tmp_path / "acme" / "coder").write_bytes(b"")
    assert name_in(Path("acme/coder")) is None
    chosen = chosen_model(Settings(llamacpp_model_path=Path("acme/coder")))
    assert chosen == tmp_path / "acme" / "coder"


@pytest.mark.parametrize(
    ("name", "fix"),
    [
        ("qwen2.5-coder-1.5b", "turbo models pull qwen2.5-coder-1.5b"),
        ("acme/coder-GGUF:Q6_K", "turbo models pull acme/coder-GGUF:Q6_K"),
        ("qwen2.5-coder-1.5", "Did you mean qwen2.5-coder-1.5b"),
        ("zzzz", "turbo models list"),
    ],
)
def test_a_model_that_is_not_here_names_the_command_that_fetches_it(name: str, fix: str) -> None:
    store(quantisation="Q4_K_M")
    with pytest.raises(ModelError) as caught:
        chosen_model(Settings(llamacpp_model_path=Path(name)))
    assert fix in caught.value.fix
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(
    ("file", "family", "quantisation", "part"),
    [
        ("coder-1.5b-q4_k_m.gguf", "coder-1.5b", "Q4_K_M", (1, 1)),
        ("Coder-UD-Q4_K_XL-00002-of-00003.gguf", "Coder", "UD-Q4_K_XL", (2, 3)),
        ("Phi-3-mini-4k-instruct-q4.gguf", "Phi-3-mini-4k-instruct", "Q4", (1, 1)),
        ("gpt-oss-20b-MXFP4.gguf", "gpt-oss-20b", "MXFP4", (1, 1)),
        ("model.gguf", "model", "", (1, 1)),
    ],
)
def test_names_of_files(file: str, family: str, quantisation: str, part: tuple[int, int]) -> None:
    name = GgufName.of(file)
    assert (name.family, name.quantisation) == (family, quantisation)
    assert (name.part, name.parts) == part


def test_a_limit_that_would_do_if_nothing_else_were_there(own_cache: Path) -> None:
    store("a/one-GGUF")
    refuse_too_large(Path("x"), GIB, GIB, 0)
