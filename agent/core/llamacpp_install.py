"""Fetch an official release of llama.cpp and keep it, if it runs here.

It is downloaded, checked and unpacked in a private folder beside its place, asked for its version
and flags there, and moved to its place in one step: what has the name of a release is whole.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from agent.core.config import Settings
from agent.core.downloads import Watch, download, fetch_json, internet
from agent.core.errors import BinaryError, DownloadError, UsageError
from agent.core.folders import private_folder
from agent.core.http_errors import checked_url
from agent.core.llamacpp_ask import Unusable
from agent.core.llamacpp_binary import PORTABLE, probe
from agent.core.llamacpp_candidates import with_libraries
from agent.core.llamacpp_installed import (
    Installed,
    Record,
    installed_releases,
    make_first,
    releases_folder,
)
from agent.core.llamacpp_release import (
    Asset,
    Release,
    Variant,
    is_tag,
    parse_release,
    pick,
    this_system,
    usual_variants,
)
from agent.core.unpack import unpack

_BY_HAND = (
    "Or fetch an archive from https://github.com/ggml-org/llama.cpp/releases yourself, check and "
    "unpack it, and set LLAMACPP_BINARY_PATH to its llama-server."
)


@dataclass(frozen=True, kw_only=True)
class Installation:
    """What became of an installation."""

    release: Installed
    fetched: bool
    """False: it was there already."""


def install(
    settings: Settings, *, variant: Variant | None, tag: str | None, watch: Watch
) -> Installation:
    """Fetch the release `tag` (None: the latest) in `variant` (None: what fits this machine).

    Raises UsageError for a tag that is none, DownloadError when it cannot be had whole, and
    BinaryError when it does not run here; nothing of it is kept then.
    """
    if tag is not None and not is_tag(tag):
        raise UsageError(f"--tag {tag}: that is no tag of a release.", fix="They look like b9828.")
    url = checked_url(settings.turbo_releases_url, "TURBO_RELEASES_URL")
    if tag is not None and variant is not None and (there := _there(tag, variant)):
        return there
    with internet() as client:
        with _or_by_hand():
            release = _find(client, url, tag)
        chosen, assets = pick(
            release, this_system(), [variant] if variant else usual_variants(this_system())
        )
        if there := _there(release.tag, chosen):
            return there
        _refuse_unchecked(assets)
        folder = releases_folder()
        with _writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            with private_folder(folder) as private:
                unpacked = private / "unpacked"
                unpacked.mkdir()
                with _or_by_hand():
                    _fetch(client, assets, private, unpacked, watch)
                program = _checked_program(unpacked, release.tag, chosen)
                record = Record(
                    tag=release.tag,
                    variant=chosen,
                    program=program.relative_to(unpacked).as_posix(),
                    archives={x.name: x.sha256 for x in assets},
                )
                record.write(unpacked)
                target = folder / f"{release.tag}-{chosen}"
                if target.exists():  # it does not run any more
                    target.rename(private / "replaced")
                unpacked.rename(target)
    return Installation(
        release=Installed(
            folder=target, tag=release.tag, variant=chosen, program=target / record.program
        ),
        fetched=True,
    )


def _there(tag: str, variant: Variant) -> Installation | None:
    """The release when it is installed and still runs; it counts as the last installed then."""
    for each in installed_releases():
        if (each.tag, each.variant) == (tag, variant):
            with contextlib.suppress(Unusable):
                probe(with_libraries(each.program, "installed"))
                make_first(each)
                return Installation(release=each, fetched=False)
    return None


def _find(client: httpx.Client, url: str, tag: str | None) -> Release:
    asked = f"{url}/releases/tags/{tag}" if tag else f"{url}/releases/latest"
    try:
        answer = fetch_json(client, asked)
    except DownloadError as error:
        if error.status != httpx.codes.NOT_FOUND:
            raise
        raise DownloadError(
            f"There is no release {tag} at {url}." if tag else f"There are no releases at {url}.",
            fix="Tags look like b9828; without --tag the latest is taken."
            if tag
            else "Correct TURBO_RELEASES_URL: https://host/repos/OWNER/NAME.",
            status=error.status,
        ) from None
    return parse_release(answer, source=asked)


def _refuse_unchecked(assets: Sequence[Asset]) -> None:
    for asset in assets:
        if not asset.sha256:
            raise DownloadError(
                f"No SHA-256 digest of {asset.name} is published, so it cannot be checked.",
                fix=f"Take a newer release: they have one since June 2025. {_BY_HAND}",
            )


def _fetch(
    client: httpx.Client, assets: Sequence[Asset], private: Path, unpacked: Path, watch: Watch
) -> None:
    for number, asset in enumerate(assets):
        archive = private / f"archive-{number}"
        with watch(asset.name, asset.size) as on_bytes:
            download(
                client,
                asset.url,
                archive,
                sha256=asset.sha256,
                size=asset.size,
                on_bytes=on_bytes,
            )
        part = private / f"part-{number}"
        unpack(archive, part, name=asset.name)
        archive.unlink()
        _merge(part, unpacked)


def _merge(part: Path, unpacked: Path) -> None:
    """Move what was in an archive into one folder; many have a single folder around everything."""
    while len(inside := list(part.iterdir())) == 1 and inside[0].is_dir():
        part = inside[0]
    into = next((x.parent for x in _programs(unpacked)), unpacked)
    for path in inside:
        if not (into / path.name).exists():
            path.rename(into / path.name)


def _programs(folder: Path) -> list[Path]:
    return sorted(x for x in folder.rglob("llama-server") if x.is_file())


def _checked_program(unpacked: Path, tag: str, variant: Variant) -> Path:
    what = f"llama.cpp {tag} ({variant})"
    programs = _programs(unpacked)
    if not programs:
        raise BinaryError(f"{what} has no llama-server in it.", fix="Try another --tag.")
    try:
        probe(with_libraries(programs[0], "installed"))
    except Unusable as unusable:
        raise BinaryError(
            f"{what} does not run here and was not kept: llama-server {unusable.reason}",
            fix=f"Try another --variant or --tag. Where no release fits: {PORTABLE}",
        ) from None
    return programs[0]


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BinaryError(
            f"{error.filename or folder} cannot be written: {error.strerror or error}",
            fix="Make room, make that folder writable, or set XDG_DATA_HOME to another one.",
        ) from None


@contextmanager
def _or_by_hand() -> Iterator[None]:
    """Errors of the network name the way without it."""
    try:
        yield
    except DownloadError as error:
        raise DownloadError(
            error.message, fix=f"{error.fix}\n{_BY_HAND}", status=error.status
        ) from error
