"""The bank of saved prefixes: what is trusted, what is not, and what stays within the limit."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from agent.core.prefix_bank import PrefixBank, prune, saved_prefixes

MIB = 1 << 20


def bank(folder: Path, *, layout: str = "model a", max_bytes: int = 10 * MIB) -> PrefixBank:
    return PrefixBank(folder, layout=layout, model="a.gguf", max_bytes=max_bytes)


def save(own: PrefixBank, ids: list[int], content: bytes, *, passing: bool = False) -> str:
    """What a server and its client do; the entry's name."""
    name, file = own.name_of(ids), own.new_file()
    (own.folder / file).write_bytes(content)
    assert own.keep(name, file, tokens=len(ids), size=len(content), passing=passing)
    return name


def test_an_entry_outlives_the_process_that_made_it(tmp_path: Path) -> None:
    name = save(bank(tmp_path), [1, 2, 3], b"state")
    later = bank(tmp_path)
    assert later.has(later.name_of([1, 2, 3]))
    assert (tmp_path / later.file_of(name)).read_bytes() == b"state"


@pytest.mark.parametrize("ids", [[1, 2], [1, 2, 3, 4], [1, 3, 2], [12, 3]])
def test_other_tokens_are_another_entry(tmp_path: Path, ids: list[int]) -> None:
    own = bank(tmp_path)
    save(own, [1, 2, 3], b"state")
    assert not own.has(own.name_of(ids))


def test_another_layout_is_another_entry(tmp_path: Path) -> None:
    save(bank(tmp_path), [1, 2, 3], b"state")
    other = bank(tmp_path, layout="model b")
    assert not other.has(other.name_of([1, 2, 3]))


@pytest.mark.parametrize(
    "damage",
    [
        lambda state: state.write_bytes(b"sta"),
        lambda state: state.write_bytes(b"STATE"),
        lambda state: state.unlink(),
        lambda state: state.with_suffix(".json").write_text("{"),
        lambda state: state.with_suffix(".json").write_text('{"tokens": 3}'),
        lambda state: state.with_suffix(".json").unlink(),
    ],
    ids=["cut off", "other bytes", "gone", "broken note", "half a note", "no note"],
)
def test_what_is_damaged_is_not_trusted(tmp_path: Path, damage: object) -> None:
    name = save(bank(tmp_path), [1, 2, 3], b"state")
    assert callable(damage)
    damage(tmp_path / f"{name}.kv")
    assert not bank(tmp_path).has(name)


def test_a_save_that_was_cut_off_is_refused_and_removed(tmp_path: Path) -> None:
    own = bank(tmp_path)
    file = own.new_file()
    (tmp_path / file).write_bytes(b"sta")
    assert not own.keep(own.name_of([1]), file, tokens=1, size=5, passing=False)
    assert list(tmp_path.iterdir()) == []


def test_the_least_used_go_when_the_limit_is_reached(tmp_path: Path) -> None:
    own = bank(tmp_path, max_bytes=2 * MIB)
    first, second = (save(own, [number], bytes(MIB)) for number in (1, 2))
    long_ago = time.time() - 100
    for age, name in enumerate((first, second)):
        os.utime(tmp_path / f"{name}.json", (long_ago + age, long_ago + age))
    assert bank(tmp_path).has(first)  # a use counts
    third = save(own, [3], bytes(MIB))
    assert {entry.name for entry in saved_prefixes(tmp_path)} == {first, third}
    assert not (tmp_path / own.file_of(second)).exists()


def test_one_that_is_larger_than_the_limit_serves_until_the_next(tmp_path: Path) -> None:
    own = bank(tmp_path, max_bytes=10)
    large = save(own, [1], bytes(100))
    assert own.has(large)
    other = save(own, [2], bytes(100))
    assert own.has(other)
    assert not own.has(large)


def test_passing_entries_end_with_the_bank_and_lasting_ones_stay(tmp_path: Path) -> None:
    own = bank(tmp_path)
    lasting, passing = save(own, [1], b"a"), save(own, [2], b"b", passing=True)
    own.close()
    assert own.has(lasting)
    assert not own.has(passing)


def test_passing_entries_do_not_pile_up(tmp_path: Path) -> None:
    own = bank(tmp_path)
    for number in range(40):
        save(own, [number], b"x", passing=True)
    assert len(saved_prefixes(tmp_path)) <= 8


def test_prune_tells_what_it_removed_and_sweeps_what_crashes_left(tmp_path: Path) -> None:
    name = save(bank(tmp_path), [1, 2], b"state")
    old, fresh, foreign = (tmp_path / x for x in ("new-1-0.kv", "new-2-0.kv", "notes.txt"))
    for path in (old, fresh, foreign):
        path.write_bytes(b"?")
    yesterday = time.time() - 86_400
    for path in (old, foreign):
        os.utime(path, (yesterday, yesterday))
    assert [entry.name for entry in prune(tmp_path, 0)] == [name]
    assert set(tmp_path.iterdir()) == {fresh, foreign}


def test_the_list_names_tokens_size_and_model(tmp_path: Path) -> None:
    save(bank(tmp_path), [1, 2], b"state")
    (entry,) = saved_prefixes(tmp_path)
    assert (entry.tokens, entry.size, entry.model) == (2, 5, "a.gguf")
    assert abs(entry.used_at - time.time()) < 60


def test_what_is_no_file_is_left_alone(tmp_path: Path) -> None:
    name = save(bank(tmp_path), [1, 2, 3], b"state")
    os.mkfifo(tmp_path / "fifo.json")
    assert [entry.name for entry in saved_prefixes(tmp_path)] == [name]
    prune(tmp_path, 0)
    assert (tmp_path / "fifo.json").exists()


@pytest.mark.parametrize("note", ["[" * 100_000, '{"tokens": 1e999, "size": 1}'])
def test_a_note_that_makes_no_sense_vouches_for_nothing(tmp_path: Path, note: str) -> None:
    (tmp_path / "a.json").write_text(note)
    (tmp_path / "a.kv").write_bytes(b"x")
    assert saved_prefixes(tmp_path) == []
