"""The catalogue of models, and what is recommended of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from agent.core.config import Settings, user_catalogue
from agent.core.errors import SettingsError
from agent.core.hardware import Hardware
from agent.core.llamacpp_devices import Device
from agent.core.model_advice import advise, best_fitting
from agent.core.model_catalogue import PACKAGED, catalogue, find_entry, read_catalogue
from agent.core.model_choice import embedded_notice
from agent.core.model_name import ModelName

ENTRIES = read_catalogue(PACKAGED)
LAPTOP = Hardware(physical_cores=4, memory_available=8 << 30)
CARD = Device(name="CUDA0", description="NVIDIA card", memory=24 << 30, free=23 << 30)


@pytest.fixture(autouse=True)
def read_anew(own_cache: Path) -> Iterator[None]:
    catalogue.cache_clear()
    yield
    catalogue.cache_clear()


def test_every_entry_can_be_looked_up_and_estimated() -> None:
    names = [entry.name for entry in ENTRIES]
    assert len(set(names)) == len(names)
    assert {"qwen2.5-coder-0.5b", "qwen2.5-coder-7b", "phi-3-mini-4k"} <= set(names)
    for entry in ENTRIES:
        assert entry.size, entry.name
        assert all(source.startswith("https://huggingface.co/") for source in entry.sources)
        assert any(entry.repository in source for source in entry.sources), entry.name
        # Bits per weight that a quantisation of four bits can have.
        assert 3.5 < 8 * entry.size / (entry.parameters * 1e9) < 8.1, entry.name


GOOD = PACKAGED.read_text().split("[[model]]")[1]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (('licence = "apache-2.0"\n', ""), "model qwen3-coder-30b-a3b: licence: Field required"),
        (("num_hidden_layers = 48\n", ""), "network: num_hidden_layers: Field required"),
        (("num_hidden_layers = 48", 'num_hidden_layers = "many"'), "valid integer"),
        (('licence = "', 'license = "x"\nlicence = "'), "license: Extra inputs"),
        (('name = "qwen3-coder-30b-a3b"\n', ""), "model number 1: name: Field required"),
        (("parameters = ", "parameters = = "), "line"),
        (('note = "', 'quantisation = "Q9_9"\nnote = "'), "sizes has no Q9_9"),
        (("[[model]]", "[[models]]"), "unknown key models"),
        (("[[model]]", "[model]"), "model is one table"),
    ],
)
def test_a_wrong_catalogue_names_file_entry_and_key(
    tmp_path: Path, change: tuple[str, str], said: str
) -> None:
    path = tmp_path / "models.toml"
    path.write_text(f"[[model]]{GOOD}".replace(*change))
    with pytest.raises(SettingsError, match=re.escape(said)) as caught:
        read_catalogue(path)
    assert str(path) in caught.value.message
    assert caught.value.exit_code == 2


def test_the_users_entries_come_first_and_take_the_place_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    own = GOOD.replace("unsloth/Qwen3-Coder", "acme/Coder")
    new = GOOD.replace('name = "qwen3-coder-30b-a3b"', 'name = "ours"')
    user_catalogue().parent.mkdir(parents=True)
    user_catalogue().write_text(f"[[model]]{own}\n[[model]]{new}")
    assert catalogue()[0].name == "ours"
    assert len(catalogue()) == len(ENTRIES) + 1
    entry = find_entry(ModelName(name="qwen3-coder-30b-a3b"))
    assert entry is not None
    assert entry.repository.startswith("acme/")


def test_an_entry_of_ones_own_needs_little(tmp_path: Path) -> None:
    path = tmp_path / "models.toml"
    path.write_text("")
    assert read_catalogue(path) == ()
    entry = 'name = "mine"\nrepository = "a/b"\nlicence = "mit"\nparameters = 7.6\n'
    path.write_text(f"[[model]]\n{entry}sizes = {{ Q4_K_M = 4000000000 }}\n")
    (advice,) = advise(read_catalogue(path), LAPTOP, Settings())
    assert (advice.verdict, "network" in advice.why) == ("unknown", True)
    with pytest.raises(SettingsError, match="cannot be read"):
        read_catalogue(tmp_path)


def test_the_best_that_fits_comes_first() -> None:
    best = [
        getattr(
            best_fitting(ENTRIES, replace(LAPTOP, memory_available=n << 30), Settings()), "name", ""
        )
        for n in (1, 3, 8, 30)
    ]
    assert best == [
        "qwen2.5-coder-0.5b",
        "qwen2.5-coder-1.5b",
        "qwen2.5-coder-7b",
        "qwen3-coder-30b-a3b",
    ]
    nothing = replace(LAPTOP, memory_available=1 << 28)
    assert best_fitting(ENTRIES, nothing, Settings()) is None


def test_a_dense_giant_is_slow_on_a_cpu_and_welcome_on_a_card() -> None:
    large = replace(LAPTOP, memory_available=60 << 30)
    verdicts = {each.entry.name: each for each in advise(ENTRIES, large, Settings())}
    assert verdicts["qwen2.5-coder-32b"].verdict == "slow"
    assert verdicts["qwen3-coder-30b-a3b"].verdict == "fits"
    carded = replace(large, devices=(CARD,))
    verdicts = {each.entry.name: each for each in advise(ENTRIES, carded, Settings())}
    assert verdicts["devstral-small-2-24b"].verdict == "fits"
    assert "on the GPU" in verdicts["devstral-small-2-24b"].why


@pytest.mark.parametrize(
    ("cores", "name"),
    [(1, "qwen2.5-coder-0.5b"), (2, "qwen2.5-coder-1.5b"), (8, "qwen3-coder-30b-a3b")],
)
def test_few_cores_are_advised_a_small_dense_model(cores: int, name: str) -> None:
    machine = replace(LAPTOP, memory_available=60 << 30, physical_cores=cores)
    best = best_fitting(ENTRIES, machine, Settings())
    assert best is not None
    assert best.name == name


def test_a_reserve_is_named_where_it_decides() -> None:
    (entry,) = (each for each in ENTRIES if each.name == "qwen2.5-coder-7b")
    needed = advise([entry], LAPTOP, Settings())[0].needed
    assert needed is not None
    (tight,) = advise([entry], replace(LAPTOP, memory_available=needed + 1), Settings())
    assert (tight.verdict, "kept in reserve" in tight.why) == ("too large", True)
    (short,) = advise([entry], replace(LAPTOP, memory_available=needed - 1), Settings())
    assert "reserve" not in short.why


def test_what_does_not_fit_comes_last_with_its_class() -> None:
    found = advise(ENTRIES, LAPTOP, Settings())
    assert [each.verdict for each in found] == sorted(
        (each.verdict for each in found), key=["fits", "slow", "too large", "unknown"].index
    )
    classes = {each.entry.name: each.memory_class for each in found}
    assert classes["qwen2.5-coder-7b"] == 8
    assert classes["qwen2.5-coder-32b"] == 32


def test_an_entry_without_a_size_says_so() -> None:
    (advice,) = advise([ENTRIES[0].model_copy(update={"sizes": {}})], LAPTOP, Settings())
    assert (advice.verdict, advice.needed, advice.memory_class) == ("unknown", None, None)


def test_without_a_model_one_line_names_the_command_for_a_better_one() -> None:
    said = embedded_notice(LAPTOP, Settings())
    assert said.startswith("No model set: the small embedded one runs")
    assert said.endswith("turbo models pull qwen2.5-coder-7b, then --model qwen2.5-coder-7b")
    assert "\n" not in said
    small = replace(LAPTOP, memory_available=1 << 28)
    assert embedded_notice(small, Settings()).endswith("turbo models recommend.")
