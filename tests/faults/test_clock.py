"""The clock of the machine is set while a run goes on, and between a run and its resume."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import signal
from pathlib import Path
from typing import Any

import pytest
from faults.conftest import TEST, Place, attached
from servers import RealServer

DAY_S = 86_400
_READ_S = 1
"""Seconds after which a program notices that its clock was set."""


def clock(offset: Path) -> dict[str, str]:
    """The environment of a program whose clock is off by what the file says, but for how long
    something takes: as on a machine whose clock is set."""
    found = importlib.util.find_spec("libfaketime")
    if found is None or not found.submodule_search_locations:
        pytest.skip("libfaketime is not installed")
    package = Path(found.submodule_search_locations[0])
    library = package / "vendor" / "libfaketime" / "src" / "libfaketime.so.1"
    return {
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(offset),
        "FAKETIME_CACHE_DURATION": str(_READ_S),
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "NO_FAKE_STAT": "1",
    }


def times(place: Place) -> list[float]:
    lines = (place.folder() / "journal.jsonl").read_text().splitlines()
    return [json.loads(line)["time"] for line in lines]


async def test_a_run_does_not_mind_a_clock_that_is_set_back(
    place: Place, real_server: RealServer, tmp_path: Path
) -> None:
    offset = tmp_path / "offset"
    offset.write_text("+0\n")

    async def set_it(process: Any) -> None:
        while not [*place.state.glob("runs/*/journal.jsonl")]:
            await asyncio.sleep(0.02)
        offset.write_text("-1d\n")

    slow = f"{TEST[:-1]}; import time; time.sleep({_READ_S + 0.2})'"
    environment = attached(real_server) | clock(offset)
    ended = await place.run("--test", slow, after=set_it, **environment)
    assert ended.exit_code == 0, ended.err
    told = times(place)
    if abs(told[-1] - told[0]) < DAY_S / 2:
        pytest.skip("libfaketime does not work here")
    assert 0 < ended.last["wall_s"] < DAY_S / 2
    listed = json.loads((await place.turbo("runs", "list", "--json")).out)
    assert (listed[0]["status"], 0 < listed[0]["wall_s"] < DAY_S / 2) == ("accepted", True)
    place.check_accepted()


async def test_a_run_goes_on_on_the_day_before(
    place: Place, real_server: RealServer, tmp_path: Path
) -> None:
    offset = tmp_path / "offset"
    offset.write_text("+1d\n")

    async def kill(process: Any) -> None:
        while not [x for x in place.state.glob("runs/*/journal.jsonl") if "plan_" in x.read_text()]:
            await asyncio.sleep(0.02)
        process.send_signal(signal.SIGKILL)

    killed = await place.run(after=kill, **attached(real_server), **clock(offset))
    assert killed.exit_code == -signal.SIGKILL
    ended = await place.turbo("runs", "resume", "--json", **attached(real_server))
    assert ended.exit_code == 0, ended.err
    assert 0 < ended.last["wall_s"] < DAY_S / 2
    listed = json.loads((await place.turbo("runs", "list", "--json")).out)
    assert (listed[0]["status"], 0 < listed[0]["wall_s"] < DAY_S / 2) == ("accepted", True)
    place.check_accepted()
