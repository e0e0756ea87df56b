"""What `make fuzz` stands on: inputs are counted, faults are found and shown by a short input."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from fuzz.exploring import Exploration, TooSlow
from fuzz.source import Source

TESTS = Path(__file__).parent


def test_inputs_are_counted_and_the_same_seed_makes_the_same_ones(tmp_path: Path) -> None:
    seen: list[list[str]] = [[], []]
    for found in seen:
        exploration = Exploration(
            lambda source, _, found=found: found.append(repr(source)), tmp_path
        )
        exploration.run(50, seed=7)
        assert exploration.made == len(found) == 50
    assert seen[0] == seen[1]
    assert len(set(seen[0])) == 50


def test_a_fault_is_shown_by_the_shortest_input_that_has_it(tmp_path: Path) -> None:
    def check(source: Source, folder: Path) -> None:
        assert source.below(256) < 90

    with pytest.raises(AssertionError) as caught:
        Exploration(check, tmp_path).run(500, seed=0)
    assert "Source(b'Z')" in "\n".join(caught.value.__notes__)


def test_an_input_that_takes_too_long_is_a_fault(tmp_path: Path) -> None:
    def check(source: Source, folder: Path) -> None:
        while source.below(1) == 0:
            pass

    with pytest.raises(TooSlow, match="processor time"):
        Exploration(check, tmp_path)._try(Source(b""), 0.05)


def test_the_long_run_says_what_it_did() -> None:
    command = [sys.executable, "-m", "fuzz", "--inputs", "30", "--processes", "1"]
    environment = os.environ | {"PYTHONPATH": str(TESTS)}
    done = subprocess.run([*command, "names"], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "names" in done.stdout
    assert "30 inputs" in done.stdout
    wrong = subprocess.run([*command, "nonsense"], env=environment, capture_output=True, text=True)
    assert wrong.returncode == 2
    assert "no such target: nonsense" in wrong.stderr
