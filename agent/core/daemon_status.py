"""How the daemon is, without waking its server."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import httpx

from agent.core.daemon_record import DaemonRecord, Serving, users_of_the_daemon

State = Literal["loading", "ready", "asleep", "silent"]
_TIMEOUT_S = 2.0
"""Both questions are answered between two batches."""


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
    sleep_idle_s: int | None
    memory: int = 0
    """Bytes of memory of daemon and server."""
    server_pid: int | None = None
    restarts: int = 0
    """Times that the server was started again."""
    url: str = ""
    build: str = ""
    model: str = ""
    slots: int = 0
    busy_slots: int | None = None
    """None where the server does not tell."""
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
        "uptime_s": round(time.time() - record.since, 1),
        "users": users_of_the_daemon(),
        "sleep_idle_s": record.sleep_idle_s,
    }
    memory = record.supervisor.memory()
    if serving is None:
        return DaemonStatus(state="loading", memory=memory, **common)
    state, busy = _ask(serving)
    return DaemonStatus(
        state=state,
        memory=memory + serving.process.memory(),
        server_pid=serving.process.pid,
        restarts=serving.starts - 1,
        url=serving.url,
        build=serving.build,
        model=str(serving.model),
        slots=serving.slots,
        busy_slots=busy,
        context=serving.context,
        log=serving.log,
        **common,
    )


def _ask(serving: Serving) -> tuple[State, int | None]:
    """The state of the server and its busy slots. /slots would wake it."""
    if not serving.process.lives():
        return "loading", None
    headers = {"Authorization": f"Bearer {serving.api_key}"}
    try:
        with httpx.Client(
            base_url=serving.url,
            headers=headers,
            timeout=_TIMEOUT_S,
            trust_env=False,
            verify=serving.url.startswith("https:"),
        ) as client:
            props = client.get("/props")
            if props.status_code == httpx.codes.SERVICE_UNAVAILABLE:
                return "loading", None
            if props.json().get("is_sleeping"):
                return "asleep", 0
            slots = client.get("/slots").json()
            return "ready", sum(bool(slot["is_processing"]) for slot in slots)
    except (httpx.HTTPError, ValueError, KeyError, TypeError, AttributeError):
        return "silent", None
