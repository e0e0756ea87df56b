"""Starts a server under limits of its own and tells what became of it, as one JSON object.

The argument is a JSON object: `settings` for the server; `join`, the cgroup.procs of a control
group to enter; `memlock`, bytes that may be locked. What is imported before it enters the group
counts for the group from which it comes.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
from pathlib import Path
from typing import Any

import httpx

from agent.core.config import Settings
from agent.core.errors import TurboError
from agent.core.server_launching import open_server


async def start(settings: Settings) -> dict[str, Any]:
    notices: list[str] = []
    try:
        async with open_server(settings, notice=notices.append) as server:
            async with httpx.AsyncClient(base_url=server.url) as client:
                reply = await client.post(
                    "/completion",
                    json={"prompt": "def f(x):", "n_predict": 2},
                    headers={"Authorization": f"Bearer {server.api_key}"},
                    timeout=30,
                )
            status = Path(f"/proc/{server.pid}/status").read_text(encoding="utf-8")
            locked = next(line for line in status.splitlines() if line.startswith("VmLck"))
            return {
                "answered": reply.status_code == httpx.codes.OK,
                "model": server.model.name,
                "slots": server.slots,
                "context": server.plan.context,
                "argv": server.plan.argv,
                "locked_kb": int(locked.split()[1]),
                "notices": notices,
            }
    except TurboError as error:
        return {"error": type(error).__name__, "message": str(error), "notices": notices}


def main() -> None:
    asked = json.loads(sys.argv[1])
    settings = Settings(**asked["settings"])
    if "memlock" in asked:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (asked["memlock"], asked["memlock"]))
    if "join" in asked:
        Path(asked["join"]).write_text("0", encoding="ascii")
    sys.stdout.write(json.dumps(asyncio.run(start(settings))))


if __name__ == "__main__":
    main()
