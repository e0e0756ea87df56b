"""How the daemon is, without waking its server."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import httpx

from agent.core.daemon_record import DaemonRecord, Serving, users_of_the_daemon
from agent.core.folders import cache_folder
from agent.core.held_file import is_held
from agent.core.json_value import read_json
from agent.core.slot_locks import SlotLocks

State = Literal["loading", "ready", "asleep", "silent"]
_TIMEOUT_S = 2.0
"""Also a server that decodes answers at once."""


@dataclass(frozen=True, kw_only=True)
class DaemonStatus:
    """What can be told of a daemon that lives."""

    state: State
    """`loading`: the server loads its model, for the first time or again; `silent`: it does not
    answer in time."""
    pid: int
    uptime_s: float
    users: list[int]
    """The pids of runs that use it."""
    sleep_idle_s: int | None = None
    memory: int = 0
    """Bytes of memory of daemon and server."""
    server_pid: int | None = None
    restarts: int = 0
    """Times that the server was started again."""
    url: str = ""
    build: str = ""
    model: str = ""
    slots: int = 0
    busy_slots: int = 0
    """Slots that runs have locked. Asking the server would keep it from its sleep."""
    context: int = 0
    """Tokens of one slot."""
    log: Path | None = None

    def as_object(self) -> dict[str, Any]:
        """For JSON."""
        return {"running": True, **asdict(self), "log": str(self.log) if self.log else None}


def status_of(record: DaemonRecord) -> DaemonStatus:
    """Look at the daemon of `record`."""
    serving = record.serving
    common: dict[str, Any] = {
        "pid": record.supervisor.pid,
        "uptime_s": round(max(0.0, time.time() - record.since), 1),  # the clock may have been set
        "users": users_of_the_daemon(),
    }
    memory = record.supervisor.memory()
    if serving is None:
        return DaemonStatus(state="loading", memory=memory, **common)
    locks = SlotLocks(cache_folder("slots", private=True), serving.url)
    busy = sum(is_held(locks.path(slot)) for slot in range(serving.slots))
    return DaemonStatus(
        state=_ask(serving),
        memory=memory + serving.process.memory(),
        server_pid=serving.process.pid,
        restarts=serving.starts - 1,
        url=serving.url,
        build=serving.build,
        model=str(serving.model),
        slots=serving.slots,
        busy_slots=busy,
        context=serving.context,
        sleep_idle_s=serving.sleep_idle_s,
        log=serving.log,
        **common,
    )


def _ask(serving: Serving) -> State:
    """The state of the server, by the one question that neither wakes it nor keeps it awake."""
    if not serving.process.lives():
        return "loading"
    try:
        reply = httpx.get(
            f"{serving.url}/props",
            headers={"Authorization": f"Bearer {serving.api_key}"},
            timeout=_TIMEOUT_S,
            trust_env=False,
            verify=serving.url.startswith("https:"),
        )
        if reply.status_code == httpx.codes.SERVICE_UNAVAILABLE:
            return "loading"
        return "asleep" if read_json(reply.content).get("is_sleeping") else "ready"
    except (httpx.HTTPError, ValueError, AttributeError):
        return "silent"
