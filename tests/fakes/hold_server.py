"""Opens a server as the program does, says so, and holds it until it is killed."""

from __future__ import annotations

import asyncio
import json
import sys

from agent.core.config import load_settings
from agent.core.server_launching import open_server


async def main() -> None:
    async with open_server(load_settings()) as server:
        about = {"server": server.pid, "private": str(server.plan.api_key_file.parent)}
        sys.stdout.write(json.dumps(about) + "\n")
        sys.stdout.flush()
        await asyncio.sleep(60)


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        sys.exit(130)
