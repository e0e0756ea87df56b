"""What the Hugging Face hub publishes of a model: its files, sizes and SHA-256 digests.

The one seam where the exceptions of huggingface_hub, and of the HTTP client under it, become ours.
It is imported only when the hub is asked: it takes a fifth of a second.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.core.config import quiet_hub_library
from agent.core.downloads import misled, network_error
from agent.core.errors import DownloadError
from agent.core.http_errors import without_password

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo

_TIMEOUT_S = 30.0
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MOST_BYTES = 1 << 50
"""No file of a model is larger."""
_ENDPOINT_FIX = "Is HF_ENDPOINT a hub or a mirror of it, and is there no login page on the way?"


@dataclass(frozen=True, kw_only=True)
class HubFile:
    """One published file."""

    path: str
    """In the repository."""
    url: str
    """Of this content, whatever the repository holds later."""
    size: int
    """Bytes."""
    sha256: str
    """In hexadecimal; empty when none was published."""


@dataclass(frozen=True, kw_only=True)
class HubRepository:
    """A repository as it is now."""

    name: str
    """owner/repository."""
    commit: str
    files: tuple[HubFile, ...]
    licence: str
    """As the hub abbreviates it; empty when none is told."""


def look_up(repository: str, *, endpoint: str, token: str) -> HubRepository:
    """Ask the hub at `endpoint` what is in a repository. Raises DownloadError."""
    quiet_hub_library()
    from huggingface_hub import HfApi, close_session, hf_hub_url  # noqa: PLC0415

    with _hub_errors(endpoint, repository, token):
        try:
            info = HfApi(endpoint=endpoint, token=token or False).model_info(
                repository, files_metadata=True, timeout=_TIMEOUT_S
            )
        finally:
            close_session()
        commit = _text(info.sha or "main")
        told = _text(info.id)
        return HubRepository(
            # As its owner spells it; one that was renamed stays what it was asked by, so that it is
            # found by that name again.
            name=told if told.lower() == repository.lower() else repository,
            commit=commit,
            files=tuple(
                HubFile(
                    path=_text(each.rfilename),
                    url=hf_hub_url(repository, each.rfilename, revision=commit, endpoint=endpoint),
                    size=_size(each.lfs.size if each.lfs else each.size),
                    sha256=_checked(_text(each.lfs.sha256)) if each.lfs else "",
                )
                for each in info.siblings or ()
            ),
            licence=_licence(info),
        )


def refusal(
    status: int | None, repository: str, *, endpoint: str, token: str, code: str = ""
) -> str:
    """What to do about an answer of `endpoint` that refuses; empty where that says nothing more.
    `code` is what the hub calls the reason."""
    page = f"{without_password(endpoint)}/{repository}"
    if code == "GatedRepo" or (status == 403 and token):
        return (
            f"Accept its licence at {page} with the account of HF_TOKEN"
            f"{'' if token else ', and set HF_TOKEN (huggingface.co/settings/tokens)'}."
        )
    if status in (401, 403):
        if token:
            return (
                "HF_TOKEN is not accepted, or there is no such repository that it may read. "
                "Correct or unset it; tokens are made at huggingface.co/settings/tokens."
            )
        return (
            "There is no such repository, or it is private or wants its licence accepted: look at "
            f"{page}, and set HF_TOKEN (huggingface.co/settings/tokens)."
        )
    if status == 404:
        return f"Check the name at {page}; `turbo models list` shows ours."
    return ""


def _text(value: object) -> str:
    """A text of the answer; the library passes on whatever the hub sent. Raises TypeError."""
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def _size(value: object) -> int:
    """Bytes of a file, 0 where none are told. Raises TypeError, ValueError."""
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{value!r} is no size")
    if not 0 <= value < _MOST_BYTES:
        raise ValueError(f"{value} is no size")
    return value


def _checked(digest: str) -> str:
    return digest if _SHA256.fullmatch(digest) else ""


def _licence(info: ModelInfo) -> str:
    told = info.card_data.get("license") if info.card_data else None
    return told if isinstance(told, str) else ""


@contextmanager
def _hub_errors(endpoint: str, repository: str, token: str) -> Iterator[None]:
    import httpx2  # noqa: PLC0415 - the client of huggingface_hub
    from huggingface_hub.errors import (  # noqa: PLC0415
        HfHubHTTPError,
        HFValidationError,
        OfflineModeIsEnabled,
    )

    try:
        yield
    except HfHubHTTPError as error:
        status = error.response.status_code
        code = error.response.headers.get("X-Error-Code", "")
        reason = f"answered {status} {error.response.reason_phrase}".rstrip()
        fix = (
            refusal(status, repository, endpoint=endpoint, token=token, code=code)
            or "Try again later."
        )
        message = f"{endpoint} {reason} for {repository}."
        raise DownloadError(message, fix=fix, status=status) from error
    except (httpx2.TooManyRedirects, httpx2.UnsupportedProtocol) as error:
        raise misled(endpoint, error) from error
    except httpx2.RequestError as error:
        raise network_error(endpoint, error, httpx2) from error
    except OfflineModeIsEnabled as error:
        raise DownloadError(
            "huggingface_hub is told to be offline.",
            fix="Unset HF_HUB_OFFLINE and TRANSFORMERS_OFFLINE to fetch models.",
        ) from error
    except HFValidationError as error:
        raise DownloadError(f"{repository} is no name of a repository: {error}", fix="") from error
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise DownloadError(
            f"{endpoint} answered, but not as the hub does for a repository.", fix=_ENDPOINT_FIX
        ) from error
