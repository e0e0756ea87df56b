"""What a saved KV cache depends on besides its tokens: model, build, and most flags."""

from __future__ import annotations

import json
from collections.abc import Sequence

_WITHOUT_EFFECT = {
    "--model": 1,
    "--host": 1,
    "--port": 1,
    "--threads": 1,
    "--threads-batch": 1,
    "--batch-size": 1,
    "--ubatch-size": 1,
    "--load-mode": 1,
    "--fit": 1,
    "--ctx-size": 1,
    "--slot-save-path": 1,
    "--api-key-file": 1,
    "--log-colors": 1,
    "--verbosity": 1,
    "--sse-ping-interval": 1,
    "--jinja": 0,
    "--metrics": 0,
    "--slots": 0,
    "--no-ui": 0,
    "--no-webui": 0,
    "--cors-origins": 1,
    "--no-cors-credentials": 0,
    "--no-warmup": 0,
    "--offline": 0,
    "--mmap": 0,
    "--no-mmap": 0,
    "--mlock": 0,
    "--direct-io": 0,
}
"""Flags that leave the cache as it is, with the number of their values (``llama_server_facts.md``
rule 3). A flag that is not listed counts, so that a new one can only cost a computation."""


def layout_of(argv: Sequence[str], *, model: str, build: str) -> str:
    """Equal for two servers exactly when one may restore what the other has saved.

    `model` is the digest of the model file, `build` the stamp of the binary.
    """
    counted: list[str] = []
    skip = 0
    for word in argv[1:]:
        if skip:
            skip -= 1
        elif word in _WITHOUT_EFFECT:
            skip = _WITHOUT_EFFECT[word]
        else:
            counted.append(word)
    return json.dumps([model, build, counted])
