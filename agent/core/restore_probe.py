"""Whether a saved prefix really serves: asked of the server once per model, build and flags.

Full attention reuses a restored state whatever follows; recurrent and hybrid models only when the
next prompt strictly extends it, and some builds, flags and models not at all
(``llama_server_facts.md`` rule 4). Nothing in a model file tells this reliably, so it is tried.

One thing a trial of bearable length cannot show. Of a layer with a sliding window only the last
window is saved. A prompt that parts from a restored one inside that window needs tokens before it;
the server reuses the rest all the same and answers wrongly (b10434). So with a sliding window a
restored prefix serves for extensions at most.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from enum import Enum

from agent.core.answer_cache import remember, remembered
from agent.core.errors import RequestRefused
from agent.core.folders import cache_folder
from agent.core.llamacpp_client import LlamaCppClient
from agent.core.llamacpp_wire import Final
from agent.core.prefix_bank import PrefixBank

_TEXT = "A probe: red green blue. One two three, four five six; seven eight nine and ten.\n" * 2
_OTHER = " Something else follows here, and it goes on for a while: x y z."
_WINDOW = '"--swa-full"'
"""In the layout of a server whose model has a sliding window."""
_FEWEST = 24
"""Tokens of the text below which the probe proves nothing."""


class Restore(Enum):
    """What a restored prefix is good for."""

    NONE = "none"
    EXTENSION = "extension"
    """Only for prompts that go on after its last token."""
    ANY = "any"
    """Also for prompts that part from it before its end."""


class _NotSaved(Exception):
    """The server did not write the state of a slot: its disk is full, or it has no folder."""


async def find_restore(
    client: LlamaCppClient, bank: PrefixBank, notice: Callable[[str], None] = lambda _: None
) -> Restore:
    """What the bank's prefixes are good for on this server: the kept answer, or a new one.

    A server that does not save now may save another time, when its disk has room again: `notice`
    gets a line, and nothing is kept of it. The server must be idle. Raises BackendError only when
    it is not well.
    """
    answers = cache_folder("restore")
    kept = remembered(answers, bank.layout) or {}
    known = next((x for x in Restore if x.value == kept.get("restore")), None)
    if known is None:
        file = bank.new_file()
        try:
            known = await probe_restore(client, file)
        except _NotSaved as error:
            notice(f"Prefixes cannot be saved and are computed in every slot anew: {error}")
            return Restore.NONE
        finally:
            bank.drop_file(file)
        remember(answers, bank.layout, {"restore": known.value})
    return Restore.EXTENSION if known is Restore.ANY and _WINDOW in bank.layout else known


async def probe_restore(client: LlamaCppClient, file: str) -> Restore:
    """Try it in slot 0, which must be free. `file` is where the state is saved meanwhile.

    Costs some 60 prompt tokens. Raises _NotSaved when it does not save the slot, and BackendError
    only when it is not well.
    """
    ids = await client.tokenize(_TEXT, add_special=True)
    other = await client.tokenize(_OTHER, add_special=False)
    half = len(ids) // 2
    if half < _FEWEST:
        return Restore.NONE
    try:
        await _read(client, ids)
        await _save(client, file)
        await client.erase_slot(0)
        if not await client.restore_slot(0, file):
            return Restore.NONE
        if await _read(client, ids + other) < len(ids):
            return Restore.NONE
        await client.erase_slot(0)
        if not await client.restore_slot(0, file):
            return Restore.NONE
        parted = await _read(client, ids[:half] + other)
    except RequestRefused:
        return Restore.NONE
    else:
        return Restore.ANY if parted >= half else Restore.EXTENSION
    finally:
        with contextlib.suppress(RequestRefused):
            await client.erase_slot(0)


async def _save(client: LlamaCppClient, file: str) -> None:
    try:
        await client.save_slot(0, file)
    except RequestRefused as error:
        raise _NotSaved(error.message) from None


async def _read(client: LlamaCppClient, ids: list[int]) -> int:
    """Let slot 0 read these tokens; how many of them it had already."""
    body = {"prompt": ids, "id_slot": 0, "n_predict": 0, "cache_prompt": True, "stream": True}
    async with client.completion(body, answer=0) as events:
        async for event in events:
            if isinstance(event, Final):
                return event.cached or 0
    return 0
