"""llama-server's own sleep: after some time without a request it frees the model, and it loads it
again at the next. Who only looks (``/health``, ``/props``) does not wake it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from agent.core.errors import BinaryError
from agent.core.launch_plan import LaunchPlan
from agent.core.llamacpp_binary import Binary

_FLAG = "--sleep-idle-seconds"


def with_sleep(plan: LaunchPlan, binary: Binary, idle_s: int | None) -> LaunchPlan:
    """The plan of a server that sleeps after `idle_s` seconds; None: never.

    Raises BinaryError for a build that cannot.
    """
    if idle_s is None:
        return plan
    if not binary.knows(_FLAG):
        raise BinaryError(
            f"{binary.path} knows no {_FLAG}, so it cannot sleep.",
            fix="Leave out --sleep-idle, or set LLAMACPP_BINARY_PATH to a build of 2026.",
        )
    return replace(plan, argv=(*plan.argv, _FLAG, str(idle_s)))


def without_sleep(argv: Sequence[str]) -> tuple[str, ...]:
    """The command line without it: nothing that the server computes depends on it."""
    if _FLAG not in argv:
        return tuple(argv)
    place = argv.index(_FLAG)
    return (*argv[:place], *argv[place + 2 :])
