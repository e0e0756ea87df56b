"""From settings to a running llama-server: find out, plan, start, and give way where that fails.

A binary that turns out to be built for another CPU is passed over, a port of our choice that is
lost to somebody else is chosen again, and a lack of memory leads down the ladder of
launch_ladder.py. What had to be given up is remembered for the next start.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from agent.core.config import Settings
from agent.core.engine_choices import Choices, uses_devices
from agent.core.errors import ServerDied, SettingsError
from agent.core.folders import cache_folder, private_folder
from agent.core.gpu_flaws import find_flaws
from agent.core.gpu_truth import describe, parse_truth
from agent.core.hardware import Hardware, read_hardware, with_devices
from agent.core.known_models import facts_of
from agent.core.launch_ladder import Ladder
from agent.core.launch_plan import LaunchPlan, plan_launch
from agent.core.launch_shape import Basis, open_ladder
from agent.core.llamacpp_ask import WRONG_CPU
from agent.core.llamacpp_binary import Binary, find_binary
from agent.core.llamacpp_server import LlamaCppServer
from agent.core.model_choice import chosen_model, embedded_notice
from agent.core.model_store import using
from agent.core.model_variants import smaller_quantisations
from agent.core.remembered_rung import keep, recall
from agent.core.server_log import new_log, start_of
from agent.core.server_sleep import with_sleep
from agent.core.tuned_store import FOLDER, load_tuned, subject_of

_PORT_TRIES = 4
_LOG_LATE_S = 0.5
"""The server writes its log beside its work, so that it may be ready some lines ahead of it."""


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """What was found out, and the way down from what is asked for."""

    basis: Basis
    ladder: Ladder
    notes: tuple[str, ...]
    """Lines worth knowing besides those of the plan."""
    recalled: Path | None = None
    """The file that remembers how little the last start here could have, when that decided."""

    def plan(self, *, port: int, slot_dir: Path | None, api_key_file: Path) -> LaunchPlan:
        """The launch for the rung on which the ladder stands."""
        return plan_launch(
            self.basis, self.ladder, port=port, slot_dir=slot_dir, api_key_file=api_key_file
        )


async def prepare(
    settings: Settings,
    refused: Mapping[Path, str] | None = None,
    tuned: Mapping[str, object] | None = None,
) -> Prepared:
    """Look at binary, model and machine; nothing is started but questions to the binary.

    `refused` names binaries that failed and why. `tuned` are values as if they had been measured;
    None: those that `turbo tune` has stored. Raises ModelError, BinaryError or SettingsError.
    """
    model = await asyncio.to_thread(chosen_model, settings)
    choices = Choices(settings)  # devices are not tuned
    info = await asyncio.to_thread(facts_of, model, cache_folder("models-known"))
    find = partial(find_binary, settings, cache=cache_folder("binaries"), refused=refused)
    binary = await asyncio.to_thread(find)
    hardware = read_hardware()
    notes = [] if settings.llamacpp_model_path else [embedded_notice(hardware, settings)]
    if uses_devices(choices, info):
        hardware = await with_devices(hardware, binary, cache=cache_folder("devices"))
        if choices.profile == "vulkan-igpu":  # the user knows better than the device's name
            hardware = replace(hardware, devices_share_memory=True)
    if tuned is None:
        tuned, damage = _stored(settings, model, binary, hardware)
        notes += damage
    choices = Choices(settings, tuned)
    basis = Basis(binary=binary, model=model, info=info, hardware=hardware, choices=choices)
    ladder = open_ladder(basis, smaller=lambda: smaller_quantisations(model, info))
    recalled = recall(cache_folder("rungs"), basis, ladder)
    if recalled is not None:
        notes.append(
            "A start less than an hour ago had too little memory for more, and no more is free now "
            f"than then. To try it all the same, remove {recalled}"
        )
    notes += binary.skipped
    return Prepared(basis=basis, ladder=ladder, notes=tuple(notes), recalled=recalled)


def _stored(
    settings: Settings, model: Path, binary: Binary, hardware: Hardware
) -> tuple[Mapping[str, object], list[str]]:
    """What `turbo tune` has found for this launch, and a line when that cannot be read."""
    subject = subject_of(settings, model, binary, hardware)
    try:
        found = load_tuned(cache_folder(FOLDER), subject)
    except SettingsError as error:
        return {}, [f"{error.message} It is ignored. {error.fix}"]
    values = dict(found.values) if found else {}
    if settings.turbo_determinism == "strict":
        values.pop("llamacpp_speculation", None)
    return values, []


def slot_folder(settings: Settings) -> Path | None:
    """Where slots are saved; None when they are not."""
    return cache_folder("prefixes", private=True) if settings.prefix_bank_max_mb > 0 else None


@asynccontextmanager
async def open_server(
    settings: Settings,
    *,
    notice: Callable[[str], None] = lambda _: None,
    log_dir: Path | None = None,
    sleep_idle_s: int | None = None,
    slots_in: Path | None = None,
    tuned: Mapping[str, object] | None = None,
) -> AsyncIterator[LlamaCppServer]:
    """A server for `settings`, ready for requests. `notice` gets a line per thing worth knowing;
    logs go to `log_dir`, by default a folder of the cache. It sleeps after `sleep_idle_s` seconds
    without a request. Slots are saved in `slots_in`, by default a folder of the cache. `tuned` is
    that of `prepare`.

    Raises SettingsError, ModelError, BinaryError or ServerError.
    """
    say = _OncePerLine(notice)
    refused: dict[Path, str] = {}
    slot_dir = slot_folder(settings)
    if slot_dir is not None and slots_in is not None:
        slot_dir = slots_in
    logs = log_dir or cache_folder("logs")
    tries_left = 1 if settings.llamacpp_port else _PORT_TRIES
    with private_folder() as folder:
        async with AsyncExitStack() as stack:
            prepared = await prepare(settings, refused, tuned)
            lowered = killed = False
            while True:
                plan = prepared.plan(
                    port=settings.llamacpp_port or _free_port(),
                    slot_dir=slot_dir,
                    api_key_file=folder / "key",
                )
                say(*prepared.notes, *plan.notes)
                stack.enter_context(using(plan.model))
                plan = with_sleep(plan, prepared.basis.binary, sleep_idle_s)
                launch = LlamaCppServer.launch(
                    plan, log=new_log(logs), timeout_s=settings.llamacpp_start_timeout_s
                )
                try:
                    server = await stack.enter_async_context(launch)
                    break
                except ServerDied as death:
                    if death.kind == "cpu":
                        refused[prepared.basis.binary.path] = WRONG_CPU
                        prepared = await prepare(settings, refused, tuned)
                    elif death.kind == "port" and tries_left > 1:
                        tries_left -= 1
                    elif death.kind == "killed" and not killed:
                        killed = True  # by whom is unknown: the same once more, then less of it
                        say(f"{death.message.partition(chr(10))[0]} It is started once more.")
                    elif death.kind in ("memory", "killed") and prepared.ladder.descend():
                        lowered = True
                    else:
                        raise
            if lowered:
                keep(cache_folder("rungs"), prepared.basis, prepared.ladder)
            await _look_at_gpus(server, prepared)
            say(*map(str, server.flaws))
            yield server


async def _look_at_gpus(server: LlamaCppServer, prepared: Prepared) -> None:
    """Read in the log of a server that is ready where it keeps what, and what is wrong there."""
    basis = prepared.basis
    give_up_at = time.monotonic() + _LOG_LATE_S
    while True:
        server.truth = parse_truth(start_of(server.log))
        if server.truth.told or not basis.binary.traces or time.monotonic() > give_up_at:
            break
        await asyncio.sleep(0.01)
    if server.truth.used:
        server.description += f" ({describe(server.truth)})"
    wanted = prepared.ladder.rung.shape.devices
    server.flaws = find_flaws(
        server.truth, choices=basis.choices, wanted=wanted, hardware=basis.hardware
    )


class _OncePerLine:
    """Passes each line on once: a plan is made again for each try."""

    def __init__(self, notice: Callable[[str], None]) -> None:
        self._notice = notice
        self._said: set[str] = set()

    def __call__(self, *lines: str) -> None:
        for line in lines:
            if line not in self._said:
                self._said.add(line)
                self._notice(line)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
