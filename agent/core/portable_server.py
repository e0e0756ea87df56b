"""The server of llama.cpp without a binary: ``python -P portable_server.py FLAGS``.

The package xllamacpp (extra ``portable``) holds llama.cpp as a Python extension. This program puts
the flags of llama-server into its parameters and serves until it is killed, so that whoever starts
a llama-server can start this instead. ``--help`` names the flags it has; they are those that a
launch plan may give, as far as the installed version of xllamacpp has their parameters. It is
started as a file, in a process of its own, and imports nothing of ours.
"""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any

_MIB = 1 << 20


class _Wrong(Exception):
    """The command line makes no sense; the text says why, as llama-server does."""


def _keys(file: str) -> list[str]:
    return [line for line in Path(file).read_text(encoding="utf-8").split("\n") if line]


def _folder(path: str) -> str:
    return path if path.endswith("/") else f"{path}/"  # the server joins it with names as it is


def _layers(text: str) -> int:
    return {"auto": -1, "all": -2}.get(text) or int(text)


def _member(enumeration: str, prefix: str) -> Callable[[str], Any]:
    """Reads a name as a member of an enumeration of xllamacpp."""

    def read(text: str) -> Any:
        return getattr(_library(), enumeration)[f"{prefix}_{text.upper().replace('-', '_')}"]

    return read


_cache_type = _member("ggml_type", "GGML_TYPE")
_attention = _member("llama_flash_attn_type", "LLAMA_FLASH_ATTN_TYPE")


_split = _member("llama_split_mode", "LLAMA_SPLIT_MODE")
_load = _member("llama_load_mode", "LLAMA_LOAD_MODE")


def _loading(text: str) -> Any:
    return _load({"mmap+mlock": "mmap_mlock", "dio": "direct_io"}.get(text, text))


def _on(text: str) -> bool:
    return {"on": True, "off": False}[text]


def _speculation(text: str) -> list[Any]:
    return [_member("common_speculative_type", "COMMON_SPECULATIVE_TYPE")(text)]


def _switched(text: str) -> Any:
    return _attention({"on": "enabled", "off": "disabled"}.get(text, text))


_VALUED: Mapping[str, tuple[str, Callable[[str], Any]]] = {
    "--model": ("model.path", str),
    "--host": ("hostnames", lambda text: [text]),
    "--port": ("port", int),
    "--ctx-size": ("n_ctx", int),
    "--parallel": ("n_parallel", int),
    "--threads": ("cpuparams.n_threads", int),
    "--threads-batch": ("cpuparams_batch.n_threads", int),
    "--batch-size": ("n_batch", int),
    "--ubatch-size": ("n_ubatch", int),
    "--cache-type-k": ("cache_type_k", _cache_type),
    "--cache-type-v": ("cache_type_v", _cache_type),
    "--flash-attn": ("flash_attn_type", _switched),
    "--cache-ram": ("cache_ram_mib", int),
    "--slot-save-path": ("slot_save_path", _folder),
    "--n-gpu-layers": ("n_gpu_layers", _layers),
    "--fit": ("fit_params", _on),
    "--main-gpu": ("main_gpu", int),
    "--split-mode": ("split_mode", _split),
    "--load-mode": ("load_mode", _loading),
    "--spec-type": ("speculative.types", _speculation),
    "--spec-ngram-mod-n-min": ("speculative.ngram_mod.n_min", int),
    "--spec-ngram-mod-n-match": ("speculative.ngram_mod.n_match", int),
    "--sse-ping-interval": ("sse_ping_interval", int),
    "--api-key-file": ("api_keys", _keys),
    "--cors-origins": ("cors_origins", str),
    "--verbosity": ("verbosity", int),
}
"""Flags with a value: the parameter, and how its value is read."""

_SWITCHES: Mapping[str, tuple[str, bool]] = {
    "--no-kv-unified": ("kv_unified", False),
    "--no-cache-idle-slots": ("cache_idle_slots", False),
    "--swa-full": ("swa_full", True),
    "--kv-offload": ("no_kv_offload", False),
    "--no-kv-offload": ("no_kv_offload", True),
    "--no-warmup": ("warmup", False),
    "--jinja": ("use_jinja", True),
    "--metrics": ("endpoint_metrics", True),
    "--slots": ("endpoint_slots", True),
    "--no-ui": ("ui", False),
    "--no-cors-credentials": ("cors_credentials", False),
    "--offline": ("offline", True),
}


def main(arguments: Sequence[str]) -> int:
    """Answer a question, or serve until a signal comes; the exit status."""
    try:
        if "--version" in arguments:
            sys.stdout.write(f"version: {_version()}\n")
        elif "--list-devices" in arguments:
            sys.stdout.write(f"Available devices:\n{_devices()}\n")
        elif "--help" in arguments:
            sys.stdout.write(_usage())
        else:
            _serve(arguments)
    except _Wrong as wrong:
        sys.stderr.write(f"error: {wrong}\n")
        return 1
    return 0


def _serve(arguments: Sequence[str]) -> None:
    parameters = _library().CommonParams()
    _fill(parameters, arguments)
    try:
        server = _library().Server(parameters)
    except RuntimeError as error:  # the log above says more
        raise _Wrong(str(error)) from None
    sys.stderr.write(f"listening on {server.listening_address}\n")
    threading.Event().wait()


def _fill(parameters: Any, arguments: Sequence[str]) -> None:
    words = iter(arguments)
    for flag in words:
        if flag in _SWITCHES:
            name, switch = _SWITCHES[flag]
            _put(parameters, name, switch)
        elif flag in _VALUED:
            name, read = _VALUED[flag]
            value = next(words, None)
            if value is None:
                raise _Wrong(f"expected value for argument: {flag}")
            try:
                _put(parameters, name, read(value))
            except (
                ValueError,
                KeyError,
                TypeError,
                AttributeError,
                OverflowError,
                OSError,
            ) as error:
                raise _Wrong(f"invalid argument: {flag} {value}: {error}") from None
        else:
            raise _Wrong(f"invalid argument: {flag}")


def _put(parameters: Any, name: str, value: Any) -> None:
    owner, _, last = name.rpartition(".")
    setattr(attrgetter(owner)(parameters) if owner else parameters, last, value)


def _has(parameters: Any, name: str) -> bool:
    try:
        attrgetter(name)(parameters)
    except AttributeError:
        return False
    return True


def _library() -> Any:
    return importlib.import_module("xllamacpp")


def _version() -> str:
    library = _library()
    commit = library.BUILD_INFO["commit"]
    known = f" ({commit})" if commit != "unknown" else ""
    return f"xllamacpp-{library.__version__}{known}"


def _devices() -> str:
    lines = [
        f"  {x['name']}: {x['description']} ({x['memory_total'] // _MIB} MiB, "
        f"{x['memory_free'] // _MIB} MiB free)"
        for x in _library().get_device_info()
        if not x["type"].name.endswith("_CPU")
    ]
    return "\n".join(lines) or "  (none)"


def _usage() -> str:
    parameters = _library().CommonParams()
    questions = [f"{flag}\n" for flag in ("--help", "--version", "--list-devices")]
    switches = [f"{flag}\n" for flag, (name, _) in _SWITCHES.items() if _has(parameters, name)]
    valued = [f"{flag} VALUE\n" for flag, (name, _) in _VALUED.items() if _has(parameters, name)]
    return "".join((*questions, *switches, *valued))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
