"""What llama.cpp publishes: the releases as GitHub's API tells them, and the archives in them.

Archives are called ``llama-b9828-bin-ubuntu-vulkan-x64.tar.gz``: system, variant and machine are
read from the parts of the name, whatever their order, and other parts make it a build that is not
ours to choose. What CUDA needs comes in another one, ``cudart-llama-...``.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from agent.core.errors import DownloadError

_NAME = re.compile(r"(?P<kind>llama|cudart-llama)-(?:.+?-)?bin-(?P<parts>.+?)\.(?:zip|tar\.gz|tgz)")
_SYSTEMS = {"Linux": {"ubuntu", "linux"}, "Darwin": {"macos"}}
_MACHINES = {"x86_64": {"x64", "x86_64", "amd64"}, "arm64": {"arm64", "aarch64"}}
_OTHER_NAMES = {"amd64": "x86_64", "aarch64": "arm64"}
_TAG = re.compile(r"[A-Za-z0-9][\w.-]*", re.ASCII)
_SHA256 = re.compile(r"sha256:([0-9a-f]{64})")


class Variant(StrEnum):
    """What a build computes with."""

    CPU = "cpu"
    VULKAN = "vulkan"
    CUDA = "cuda"
    METAL = "metal"


@dataclass(frozen=True, kw_only=True)
class Asset:
    """One published file."""

    name: str
    url: str
    size: int
    """Bytes."""
    sha256: str
    """In hexadecimal; empty when none was published."""


@dataclass(frozen=True, kw_only=True)
class Release:
    """A published version."""

    tag: str
    assets: tuple[Asset, ...]


@dataclass(frozen=True, kw_only=True)
class System:
    """What a build must fit."""

    name: str
    """As `platform.system` tells it."""
    machine: str
    """As `platform.machine` tells it."""

    def __str__(self) -> str:
        return f"{self.name} on {self.machine}"


@dataclass(frozen=True, kw_only=True)
class _Build:
    kind: str
    variant: str
    version: tuple[int, ...]
    """Of CUDA; empty for the others."""
    asset: Asset


def this_system() -> System:
    """The machine we are on."""
    return System(name=platform.system(), machine=platform.machine())


def is_tag(text: str) -> bool:
    """Whether `text` may be the tag of a release, and part of a path."""
    return _TAG.fullmatch(text) is not None


def parse_release(data: Any, *, source: str) -> Release:
    """Read an answer of the API. Raises DownloadError that names `source`."""
    try:
        tag = str(data["tag_name"])
        assets = tuple(
            Asset(
                name=str(each["name"]),
                url=str(each["browser_download_url"]),
                size=int(each["size"]),
                sha256=_sha256(each.get("digest")),
            )
            for each in data["assets"]
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        tag, assets = "", ()
    if not is_tag(tag):
        raise DownloadError(
            f"{source} answered, but not as GitHub's API does for a release.",
            fix="Correct TURBO_RELEASES_URL: https://host/repos/OWNER/NAME of such an API.",
        )
    return Release(tag=tag, assets=assets)


def usual_variants(system: System) -> tuple[Variant, ...]:
    """What fits this machine when nobody says: the first of them that is published."""
    if system.name == "Darwin":
        return (Variant.METAL, Variant.CPU)
    return (Variant.VULKAN, Variant.CPU) if _has_vulkan() else (Variant.CPU,)


def pick(
    release: Release, system: System, variants: Sequence[Variant]
) -> tuple[Variant, list[Asset]]:
    """The first of `variants` that is published for `system`, and its archives: the one with the
    llama-server first.

    Raises DownloadError that names what there is.
    """
    builds = [x for asset in release.assets for x in _builds(asset, system)]
    programs = [x for x in builds if x.kind == "llama"]
    for variant in variants:
        fitting = [x for x in programs if x.variant == variant]
        if fitting:
            # The lowest CUDA runs with the most drivers.
            chosen = min(fitting, key=lambda x: x.version)
            with_it = [
                x.asset
                for x in builds
                if x.kind != "llama" and (x.variant, x.version) == (variant, chosen.version)
            ]
            return variant, [chosen.asset, *with_it]
    there = sorted({x.variant for x in programs} & set(Variant))
    raise DownloadError(
        f"llama.cpp {release.tag} has no {' or '.join(variants)} build for {system}.",
        fix=f"It has: {', '.join(there)}. Choose with --variant."
        if there
        else "Build llama.cpp yourself and set LLAMACPP_BINARY_PATH, or: "
        "pip install 'turbo-local-coder[portable]'",
    )


def _sha256(digest: object) -> str:
    found = _SHA256.fullmatch(str(digest).lower())
    return found.group(1) if found else ""


def _builds(asset: Asset, system: System) -> Iterator[_Build]:
    """What the asset is for `system`; nothing when it is not for it."""
    named = _NAME.fullmatch(asset.name)
    if named is None:
        return
    parts = named["parts"].split("-")
    machine = system.machine.lower()
    machine = _OTHER_NAMES.get(machine, machine)
    ours = _SYSTEMS.get(system.name, set()), _MACHINES.get(machine, {machine})
    if not all(names & set(parts) for names in ours):
        return
    rest = [x for x in parts if not any(x in names for names in ours)]
    version: tuple[int, ...] = ()
    if rest and re.fullmatch(r"\d+(\.\d+)*", rest[-1]):
        version = tuple(int(x) for x in rest.pop().split("."))
    plain = Variant.METAL if (system.name, machine) == ("Darwin", "arm64") else Variant.CPU
    if len(rest) < 2:  # two: some special build of one of ours
        variant = rest[0] if rest else plain
        yield _Build(kind=named["kind"], variant=variant, version=version, asset=asset)


def _has_vulkan() -> bool:
    """Whether the loader is there that a Vulkan build opens."""
    import ctypes  # noqa: PLC0415 - the command line imports this file for its choices

    try:
        ctypes.CDLL("libvulkan.so.1")
    except OSError:
        return False
    return True
