"""Fetch a model from the hub into the cache: every file checked, placed in one step, resumable.

A file is verified against the digest that the hub publishes before it gets its name, the files get
theirs when all are here, and the record that makes a model of them is written last
(model_store.py). Of two programs that pull the same model one fetches it and the other waits.
"""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from agent.core.config import Settings, models_dir
from agent.core.downloads import Watch, download, internet
from agent.core.errors import DownloadError, ModelError, SettingsError
from agent.core.folders import cache_folder
from agent.core.gguf_info import read_gguf
from agent.core.http_errors import checked_url
from agent.core.model_catalogue import repository_of, usual_of
from agent.core.model_digest import know_digest, model_digest
from agent.core.model_files import Published, choose, file_name
from agent.core.model_hub import HubFile, HubRepository, look_up, refusal
from agent.core.model_name import ModelName
from agent.core.model_room import GIB, gib, make_room, refuse_too_large
from agent.core.model_store import (
    Record,
    StoredFile,
    StoredModel,
    changing,
    find_stored,
    folder_of,
    part_of,
    unfinished_parts,
    write_record,
)

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Pulled:
    """A model that is here now."""

    model: StoredModel
    fetched: bool
    """False: it was here already."""


def pull(name: ModelName, settings: Settings, *, watch: Watch, say: Say) -> Pulled:
    """Have the model that `name` stands for in the cache.

    Raises ModelError for a name, quantisation or model that cannot be, DownloadError when it cannot
    be had whole; what arrived is kept then, and the next pull goes on from there.
    """
    repository, usual = repository_of(name), usual_of(name)
    there = find_stored(repository, name.wanted or usual)
    if there is not None:
        return Pulled(model=there, fetched=False)
    if settings.hf_hub_offline:
        raise ModelError(
            Path(str(name)),
            "it is not here, and nothing is to be fetched (--offline or HF_HUB_OFFLINE)",
            fix="Pull it once while this machine is online; `turbo models list` shows what is "
            "here.",
        )
    endpoint = checked_url(settings.hf_endpoint, "HF_ENDPOINT")
    token = _token(settings)
    with internet() as client:
        found = look_up(repository, endpoint=endpoint, token=token)
        chosen = choose(found, name, usual)
        _refuse_unchecked(chosen)
        return _Pull(client, name, found, chosen, token, settings, watch, say).run()


class _Pull:
    """One model on its way."""

    def __init__(
        self,
        client: httpx.Client,
        asked: ModelName,
        repository: HubRepository,
        chosen: Published,
        token: str,
        settings: Settings,
        watch: Watch,
        say: Say,
    ) -> None:
        self._client = client
        self._asked = Path(str(asked))
        self._repository = repository
        self._chosen = chosen
        self._token = token
        self._endpoint = settings.hf_endpoint.rstrip("/")
        self._limit = math.floor(settings.model_cache_max_gb * GIB)
        self._watch = watch
        self._say = say
        self._folder = folder_of(repository.name)

    def run(self) -> Pulled:
        with self._writing():
            self._folder.mkdir(parents=True, exist_ok=True)
            with self._alone():
                wanted = self._chosen.name
                there = find_stored(self._repository.name, wanted)
                if there is not None:  # somebody else was faster
                    return Pulled(model=there, fetched=False)
                self._drop_stale()
                refuse_too_large(self._asked, self._chosen.size, self._limit, self._missing())
                self._evict(self._missing())
                for file in self._chosen.files:
                    self._fetch(file)
                # Only now: until then it counts as what can be given up.
                for file in self._chosen.files:
                    self._place(file)
                self._check_model()
                model = write_record(self._folder, self._chosen.name, self._record())
        self._evict(0, keep=model.asked_as)
        return Pulled(model=model, fetched=True)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            if not stack.enter_context(changing(self._folder, self._chosen.name)):
                self._say(f"Another program is busy with {self._chosen.name}; waiting for it.")
                waiting = changing(self._folder, self._chosen.name, patience_s=math.inf)
                stack.enter_context(waiting)
            yield

    def _drop_stale(self) -> None:
        """Remove what is left of pulls of this model when it was published with other content."""
        wanted = {self._part(file) for file in self._chosen.files}
        for path, name in unfinished_parts():
            if path.parent == self._folder and name == self._chosen.name and path not in wanted:
                path.unlink(missing_ok=True)

    def _missing(self) -> int:
        """Bytes that are still to be fetched."""
        have = 0
        for file in self._chosen.files:
            for path in (self._folder / file_name(file), self._part(file)):
                with contextlib.suppress(FileNotFoundError):
                    have += min(path.stat().st_size, file.size)
                    break
        return self._chosen.size - have

    def _evict(self, needed: int, *, keep: str = "") -> None:
        for entry in make_room(self._limit, needed, keep=keep):
            self._say(
                f"Removed {entry.what} ({gib(entry.size)}), the least recently used, to keep the "
                f"model cache within {gib(self._limit)} (MODEL_CACHE_MAX_GB)."
            )

    def _fetch(self, file: HubFile) -> None:
        """Have a file here, checked."""
        target, part = self._folder / file_name(file), self._part(file)
        if self._is_placed(target, file):
            return
        try:
            with self._watch(target.name, file.size) as on_bytes:
                download(
                    self._client,
                    file.url,
                    part,
                    sha256=file.sha256,
                    size=file.size,
                    token=self._token,
                    on_bytes=on_bytes,
                )
        except DownloadError as error:
            raise self._explained(error, part) from error

    def _place(self, file: HubFile) -> None:
        """Give a file its name."""
        target, part = self._folder / file_name(file), self._part(file)
        if part.exists():
            part.replace(target)
            know_digest(target, cache_folder("digests"), file.sha256)

    def _is_placed(self, target: Path, file: HubFile) -> bool:
        """Whether a pull that was ended before it wrote the record has placed this one already."""
        try:
            if target.stat().st_size != file.size:
                return False
        except FileNotFoundError:
            return False
        return model_digest(target, cache_folder("digests")) == file.sha256

    def _explained(self, error: DownloadError, part: Path) -> DownloadError:
        told = refusal(
            error.status,
            self._repository.name,
            endpoint=self._endpoint,
            token=self._token,
            code=error.code,
        )
        fix = told or error.fix
        with contextlib.suppress(OSError):
            if kept := part.stat().st_size:
                fix = f"{fix}\n{gib(kept)} of it are kept: the same command goes on from there."
            else:
                part.unlink()
        return DownloadError(error.message, fix=fix, status=error.status)

    def _check_model(self) -> None:
        """Refuse what is no model, though it is what was published; nothing of it stays."""
        files = [self._folder / file_name(file) for file in self._chosen.files]
        try:
            read_gguf(files[0])
        except ModelError as error:
            for path in files:
                path.unlink(missing_ok=True)
            raise ModelError(
                self._asked,
                f"what {self._repository.name} publishes is no usable model: {error.message}",
                fix="It was removed again. Pull it from another repository.",
            ) from error

    def _part(self, file: HubFile) -> Path:
        return part_of(self._folder, self._chosen.name, file.sha256)

    def _record(self) -> Record:
        return Record(
            repository=self._repository.name,
            commit=self._repository.commit,
            quantisation=self._chosen.quantisation,
            licence=self._repository.licence,
            files=tuple(
                StoredFile(name=file_name(x), size=x.size, sha256=x.sha256)
                for x in self._chosen.files
            ),
        )

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ModelError(
                self._asked,
                f"{error.filename or models_dir()} cannot be written: {error.strerror or error}",
                fix="Make room, make that folder writable, or set XDG_CACHE_HOME to another one.",
            ) from None


def _token(settings: Settings) -> str:
    """HF_TOKEN without the blanks and the line's end that come along from a file; empty without
    one. Raises SettingsError, which never shows it, for what no header can hold."""
    token = settings.hf_token.get_secret_value().strip() if settings.hf_token else ""
    if not re.fullmatch(r"[!-~]*", token):
        raise SettingsError(
            "HF_TOKEN holds blanks, line ends or other characters that no token has.",
            fix="Copy it again from huggingface.co/settings/tokens, or unset it.",
        )
    return token


def _refuse_unchecked(chosen: Published) -> None:
    for file in chosen.files:
        if not file.sha256:
            raise DownloadError(
                f"The hub publishes no SHA-256 digest of {file.path}, so it cannot be checked.",
                fix="Fetch and check it yourself, and give its path as --model.",
            )
