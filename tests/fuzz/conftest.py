"""The short run of a check, as part of the suite."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fuzz.exploring import Check, Exploration

_INPUTS = 300


@pytest.fixture
def explored(tmp_path: Path) -> Callable[[Check], int]:
    """Tries a few hundred inputs, in every run the same ones; how many they were."""

    def run(check: Check) -> int:
        exploration = Exploration(check, tmp_path)
        exploration.run(_INPUTS, seed=0)
        return exploration.made

    return run
