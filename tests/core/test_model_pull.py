"""Pulling models from a local server that speaks the hub's protocol, and everything that goes wrong
on the way."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from fakes.gguf_writer import BASIC, DATA, gguf
from fakes.hub_server import COMMIT, HubServer

from agent.core import downloads
from agent.core.config import Settings, models_dir
from agent.core.errors import DownloadError, ModelError, SettingsError
from agent.core.model_name import ModelName, parse_name
from agent.core.model_pull import Pulled, pull
from agent.core.model_store import find_stored, stored_models, unfinished_parts

REPOSITORY = "acme/coder-1b-GGUF"
FILE = "coder-1b-q4_k_m.gguf"
SIZE = 600_000


@pytest.fixture(autouse=True)
def alone_with_the_hub(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of this test, and no proxies; trying again takes no time."""
    monkeypatch.setattr(downloads, "_PAUSES_S", (0.0, 0.0))
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def model(name: str = "Small", *, size: int = SIZE) -> bytes:
    """A GGUF file of about that size, another one for another name."""
    return gguf({**BASIC, "general.name": name}, data=max(DATA, size))


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with HubServer() as server:
        server.publish(REPOSITORY, {FILE: model(), "README.md": b"text"})
        yield server


@contextlib.contextmanager
def unseen(name: str, size: int) -> Iterator[Callable[[int], None]]:
    yield lambda _: None


def get(hub: HubServer, text: str = REPOSITORY, **settings: Any) -> Pulled:
    name = parse_name(text)
    assert name is not None
    asked = Settings(hf_endpoint=settings.pop("url", hub.url), **settings)
    return pull(name, asked, watch=unseen, say=lambda _: None)


def there() -> list[str]:
    """All files of the cache but locks."""
    found = (x for x in models_dir().rglob("*") if x.is_file() and not x.name.endswith(".lock"))
    return sorted(path.name for path in found)


def test_a_model_is_fetched_once_and_known_by_name_after(hub: HubServer) -> None:
    done = get(hub)
    assert done.fetched
    assert done.model.path == models_dir() / REPOSITORY / FILE
    assert done.model.path.read_bytes() == model()
    assert done.model.record.commit == COMMIT
    assert done.model.record.licence == "mit"
    assert done.model.record.quantisation == "Q4_K_M"
    hub.asked.clear()
    for name in (REPOSITORY, f"{REPOSITORY}:q4_k_m", f"{REPOSITORY}:{FILE}"):
        assert get(hub, name) == Pulled(model=done.model, fetched=False)
    assert hub.asked == []
    assert there() == sorted([FILE, "coder-1b-q4_k_m.json"])


def test_a_name_of_the_catalogue(hub: HubServer) -> None:
    repository = "Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF"
    small, large = model("small"), model("large")
    files = {"qwen2.5-coder-1.5b-instruct-q4_k_m.gguf": small, "x-q8_0.gguf": large}
    hub.publish(repository, files)
    assert get(hub, "qwen2.5-coder-1.5b").model.path.read_bytes() == small
    assert get(hub, "qwen2.5-coder-1.5b:q8_0").model.path.read_bytes() == large


def test_ten_cuts_end_with_the_right_file(hub: HubServer) -> None:
    hub.cuts = [50_000] * 10
    assert get(hub).model.path.read_bytes() == model()
    begun = [each.get("range") for each in hub.downloads()]
    assert len(begun) == 11
    assert begun == [None, *(f"bytes={50_000 * n}-" for n in range(1, 11))]


def test_a_cut_that_brings_nothing_any_more_ends_it_and_keeps_what_came(hub: HubServer) -> None:
    hub.cuts = [100_000, 0, 0, 0]
    with pytest.raises(DownloadError, match="was lost") as caught:
        get(hub)
    assert "the same command goes on from there" in caught.value.fix
    assert caught.value.exit_code == 3
    assert [path.stat().st_size for path, _ in unfinished_parts()] == [100_000]
    assert stored_models() == []
    hub.asked.clear()
    assert get(hub).fetched
    assert [each["range"] for each in hub.downloads()] == ["bytes=100000-"]


def test_a_hub_that_ignores_ranges(hub: HubServer) -> None:
    hub.cuts, hub.ranges = [100_000], False
    assert get(hub).model.path.read_bytes() == model()


def test_a_part_that_is_longer_than_the_file_has_become(hub: HubServer) -> None:
    """The file of that digest is as long as ever, but what is served is not: 416."""
    hub.cuts = [SIZE - 100, 0, 0, 0]
    with pytest.raises(DownloadError):
        get(hub)
    (path,) = (x for x in hub.content if x.endswith(FILE))
    whole, hub.content[path] = hub.content[path], b"short"
    with pytest.raises(DownloadError, match="SHA-256 digest differs"):
        get(hub)
    assert there() == []
    hub.content[path] = whole
    assert get(hub).fetched


def test_another_part_than_was_asked_for(hub: HubServer) -> None:
    hub.cuts, hub.shift = [100_000], 7
    with pytest.raises(DownloadError, match="another part than it was asked for"):
        get(hub)
    hub.shift = 0
    assert get(hub).model.path.read_bytes() == model()


def test_a_file_that_is_published_anew_between_two_tries(hub: HubServer) -> None:
    hub.cuts = [100_000, 0, 0, 0]
    with pytest.raises(DownloadError):
        get(hub)
    hub.publish(REPOSITORY, {FILE: model("newer")})
    assert get(hub).model.path.read_bytes() == model("newer")
    assert there() == sorted([FILE, "coder-1b-q4_k_m.json"])


@pytest.mark.parametrize("change", [lambda x: x[:-1], lambda x: x + b"!", lambda x: b"!" + x[1:]])
def test_what_is_not_what_was_published_is_not_kept(hub: HubServer, change) -> None:
    (path,) = (x for x in hub.content if x.endswith(FILE))
    hub.content[path] = change(hub.content[path])
    with pytest.raises(DownloadError, match="SHA-256 digest differs") as caught:
        get(hub)
    assert "must not be trusted" in caught.value.fix
    assert there() == []


def test_without_a_published_digest_nothing_is_fetched(hub: HubServer) -> None:
    del hub.repositories[REPOSITORY]["siblings"][0]["lfs"]
    with pytest.raises(DownloadError, match="no SHA-256 digest"):
        get(hub)
    assert hub.downloads() == []


@pytest.mark.parametrize("content", [b"<html>not found</html>" * 99, b"GGUF" + b"\xff" * 999])
def test_what_is_published_but_no_model_is_removed_again(hub: HubServer, content: bytes) -> None:
    hub.publish(REPOSITORY, {FILE: content})
    with pytest.raises(ModelError, match="no usable model") as caught:
        get(hub)
    assert caught.value.exit_code == 3
    assert there() == []


def test_parts_are_fetched_in_order_and_taken_up_between_them(hub: HubServer) -> None:
    parts = [f"big/coder-9b-Q8_0-{n:05}-of-00003.gguf" for n in (1, 2, 3)]
    hub.publish(REPOSITORY, {name: model(name) for name in reversed(parts)})
    hub.statuses[f"/{REPOSITORY}/resolve/{COMMIT}/{parts[2]}"] = (500, {})
    with pytest.raises(DownloadError, match="500"):
        get(hub, f"{REPOSITORY}:Q8_0")
    assert stored_models() == []
    assert {path.suffix for path in models_dir().rglob("*") if path.is_file()} == {".part", ".lock"}
    hub.statuses.clear()
    hub.asked.clear()
    done = get(hub, f"{REPOSITORY}:Q8_0")
    assert len(hub.downloads()) == 1
    assert done.model.path.name == "coder-9b-Q8_0-00001-of-00003.gguf"
    assert len(done.model.record.files) == 3
    assert done.model.size == sum(len(model(name)) for name in parts)


def test_a_pull_that_was_ended_before_its_record_is_taken_up(hub: HubServer) -> None:
    model_there = get(hub).model
    (model_there.folder / f"{model_there.name}.json").unlink()
    assert stored_models() == []
    hub.asked.clear()
    assert get(hub).fetched
    assert hub.downloads() == []


def test_a_quantisation_that_is_not_there_lists_those_that_are(hub: HubServer) -> None:
    files = {"a-Q4_K_M.gguf": model(), "a-UD-Q8_K_XL.gguf": model(), "mmproj-F16.gguf": model()}
    hub.publish(REPOSITORY, files)
    with pytest.raises(ModelError, match="has no Q6_K") as caught:
        get(hub, f"{REPOSITORY}:Q6_K")
    assert "It has Q4_K_M, UD-Q8_K_XL;" in caught.value.fix
    hub.publish(REPOSITORY, {"README.md": b""})
    with pytest.raises(ModelError, match="has no GGUF file"):
        get(hub)
    hub.publish(REPOSITORY, {"a-q4_k_m.gguf": model(), "b-q4_k_m.gguf": model()})
    with pytest.raises(ModelError, match=r"several in Q4_K_M: a-q4_k_m, b-q4_k_m"):
        get(hub)
    assert get(hub, f"{REPOSITORY}:b-q4_k_m").model.path.name == "b-q4_k_m.gguf"


def test_whole_files_come_before_the_same_in_parts(hub: HubServer) -> None:
    files = {f"a-q4_k_m-{n:05}-of-00002.gguf": model() for n in (1, 2)}
    hub.publish(REPOSITORY, {**files, "a-q4_k_m.gguf": model("whole")})
    assert get(hub).model.path.read_bytes() == model("whole")


def test_an_unknown_name_suggests_the_nearest(hub: HubServer) -> None:
    with pytest.raises(ModelError, match="no such name") as caught:
        get(hub, "qwen2.5-coder-7")
    assert "qwen2.5-coder-7b" in caught.value.fix
    assert hub.asked == []


def test_the_token_goes_to_the_hub_and_nowhere_else(hub: HubServer) -> None:
    hub.token = "hf_right"
    hub.gated.add(REPOSITORY)
    assert get(hub, hf_token="hf_right").fetched
    told = {path.split("/")[1]: "authorization" in headers for _, path, headers in hub.asked}
    assert told == {"api": True, "acme": True, "bytes": False}


@pytest.mark.parametrize(
    ("token", "closed", "fix"),
    [
        ("", "private", "set HF_TOKEN"),
        ("hf_wrong", "", "HF_TOKEN is not accepted"),
        ("", "gated", "set HF_TOKEN"),
        ("", "absent", "There is no such repository"),
    ],
)
def test_refusals_say_what_to_do(hub: HubServer, token: str, closed: str, fix: str) -> None:
    hub.token = "hf_right"
    name = "acme/absent" if closed == "absent" else REPOSITORY
    {"private": hub.private, "gated": hub.gated}.get(closed, set()).add(REPOSITORY)
    with pytest.raises(DownloadError, match=r"40[13]") as caught:
        get(hub, name, hf_token=token or None)
    assert fix in caught.value.fix
    assert token not in str(caught.value) or not token
    assert there() == []


def test_a_licence_that_was_not_accepted(hub: HubServer) -> None:
    path = f"/{REPOSITORY}/resolve/{COMMIT}/{FILE}"
    hub.statuses[path] = (403, {"X-Error-Code": "GatedRepo"})
    hub.token = "hf_right"
    with pytest.raises(DownloadError, match="403") as caught:
        get(hub, hf_token="hf_right")
    assert f"Accept its licence at {hub.url}/{REPOSITORY}" in caught.value.fix


def closed_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


def test_no_network(hub: HubServer) -> None:
    with pytest.raises(DownloadError, match="cannot be reached") as caught:
        get(hub, url=f"http://127.0.0.1:{closed_port()}")
    assert "HTTPS_PROXY" in caught.value.fix
    assert caught.value.exit_code == 3


def test_a_proxy_that_does_not_answer(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://me:secret@127.0.0.1:{closed_port()}")
    with pytest.raises(DownloadError, match="through the proxy") as caught:
        get(hub, url="http://hub.invalid")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "said"), [(407, "407"), (429, "429"), (503, "503"), (404, "404")]
)
def test_other_answers_of_the_hub(hub: HubServer, status: int, said: str) -> None:
    hub.statuses[f"/api/models/{REPOSITORY}"] = (status, {})
    with pytest.raises(DownloadError, match=said) as caught:
        get(hub)
    assert caught.value.fix


def test_an_answer_that_is_no_hub(hub: HubServer) -> None:
    hub.statuses[f"/api/models/{REPOSITORY}"] = (200, {})
    with pytest.raises(DownloadError, match="not as the hub does") as caught:
        get(hub)
    assert "HF_ENDPOINT" in caught.value.fix
    with pytest.raises(SettingsError, match="HF_ENDPOINT"):
        get(hub, url="file:///etc")


def test_offline_nothing_is_asked(hub: HubServer) -> None:
    with pytest.raises(ModelError, match="nothing is to be fetched"):
        get(hub, hf_hub_offline=True)
    assert hub.asked == []
    get(hub)
    assert not get(hub, hf_hub_offline=True).fetched


def test_a_limit_that_is_smaller_than_the_model(hub: HubServer) -> None:
    with pytest.raises(ModelError, match="more than the model cache may have") as caught:
        get(hub, model_cache_max_gb=0.0001)
    assert "MODEL_CACHE_MAX_GB" in caught.value.fix
    assert hub.downloads() == []


@pytest.fixture
def small_disk(own_cache: Path) -> Iterator[Path]:
    """A disk of 1 MiB under the model cache."""
    folder = models_dir()
    folder.mkdir(parents=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True
    )
    if mounted.returncode != 0:
        pytest.skip("a disk of its own needs the right to mount one")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_has_too_little_room(hub: HubServer, small_disk: Path) -> None:
    hub.publish(REPOSITORY, {FILE: model(size=2 << 20)})
    with pytest.raises(ModelError, match=r"has .* free") as caught:
        get(hub)
    assert "turbo models prune" in caught.value.fix
    assert hub.downloads() == []


def test_a_disk_that_fills_up_on_the_way(hub: HubServer, small_disk: Path) -> None:
    hub.stall_at = 100_000
    filler = small_disk / "filler"

    def fill() -> None:
        hub.stalled.wait()
        filler.write_bytes(b"\0" * 700_000)
        hub.go_on.set()

    filling = Thread(target=fill)
    filling.start()
    name = ModelName(name=REPOSITORY)
    settings = Settings(hf_endpoint=hub.url)
    with pytest.raises(DownloadError, match="No space left") as caught:
        pull(name, settings, watch=unseen, say=lambda _: None)
    filling.join()
    assert "the same command goes on from there" in caught.value.fix
    assert stored_models() == []
    filler.unlink()
    hub.asked.clear()
    assert pull(name, settings, watch=unseen, say=lambda _: None).model.path.read_bytes() == model()
    assert "range" in hub.downloads()[0]


def test_a_cache_that_cannot_be_written(hub: HubServer, own_cache: Path) -> None:
    own_cache.mkdir()
    (own_cache / "turbo-local-coder").write_text("a file where the folder should be")
    with pytest.raises(ModelError, match="cannot be written") as caught:
        get(hub)
    assert "XDG_CACHE_HOME" in caught.value.fix


def turbo_pull(hub: HubServer, folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "agent", "models", "pull", REPOSITORY],
        env={**os.environ, "HF_ENDPOINT": hub.url},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
    )


def test_of_two_pulls_at_once_one_fetches_and_the_other_waits(
    hub: HubServer, tmp_path: Path
) -> None:
    hub.stall_at = 100_000
    first = turbo_pull(hub, tmp_path)
    try:
        assert hub.stalled.wait(20), first.communicate()
        second = turbo_pull(hub, tmp_path)
        try:
            assert second.stderr is not None
            assert "waiting" in second.stderr.readline()
            hub.go_on.set()
            out_first, err_first = first.communicate(timeout=30)
            out_second, err_second = second.communicate(timeout=30)
        finally:
            second.kill()
            second.wait()
    finally:
        first.kill()
        first.wait()
    assert (first.returncode, second.returncode) == (0, 0), err_first + err_second
    assert "is here now" in out_first
    assert "is here already" in out_second
    assert sum(hub.starts.values()) == 1


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGKILL, -9), (signal.SIGINT, 130)])
def test_a_pull_that_is_ended_is_taken_up_by_the_next(
    hub: HubServer, tmp_path: Path, signum: signal.Signals, code: int
) -> None:
    hub.stall_at = 300_000
    process = turbo_pull(hub, tmp_path)
    try:
        assert hub.stalled.wait(20), process.communicate()

        def arrived() -> int:
            return sum(path.stat().st_size for path, _ in unfinished_parts())

        while arrived() < 200_000 and process.poll() is None:
            pass
        process.send_signal(signum)
        process.communicate(timeout=10)
        assert process.returncode == code
        kept = arrived()
    finally:
        hub.go_on.set()
        process.kill()
        process.wait()
    assert kept >= 200_000
    assert stored_models() == []
    hub.asked.clear()
    done = get(hub)
    assert [each["range"] for each in hub.downloads()] == [f"bytes={kept}-"]
    digest = hashlib.sha256(done.model.path.read_bytes()).hexdigest()
    assert digest == hashlib.sha256(model()).hexdigest()


def test_a_part_of_nothing_but_garbage_is_fetched_again(hub: HubServer) -> None:
    hub.cuts = [100_000, 0, 0, 0]
    with pytest.raises(DownloadError):
        get(hub)
    ((path, _),) = unfinished_parts()
    path.write_bytes(b"\1" * 100_000)
    with pytest.raises(DownloadError, match="SHA-256 digest differs"):
        get(hub)
    assert get(hub).fetched


def test_a_whole_file_that_was_damaged_is_not_taken_for_one(hub: HubServer) -> None:
    path = get(hub).model.path
    path.write_bytes(path.read_bytes()[:-1])
    assert stored_models() == []
    assert get(hub).fetched
    assert path.read_bytes() == model()


def test_what_the_hub_says_names_no_other_folder(hub: HubServer) -> None:
    hub.repositories[REPOSITORY]["id"] = "../../../tmp"
    names = ("../../up-q4_k_m.gguf", "x\x1b[2J-q4_k_m.gguf", "..", ".gguf")
    siblings = hub.repositories[REPOSITORY]["siblings"]
    siblings += [{**siblings[0], "rfilename": name} for name in names[1:]]
    assert get(hub).model.path == models_dir() / REPOSITORY / FILE
    siblings[0]["rfilename"] = names[0]
    hub.content[f"/{REPOSITORY}/resolve/{COMMIT}/{names[0]}"] = model()
    with contextlib.suppress(DownloadError):
        get(hub, f"{REPOSITORY}:up-q4_k_m")
    assert {path.parent for path in models_dir().rglob("*.*")} <= {models_dir() / REPOSITORY}


def test_the_spelling_of_the_owner_is_kept(hub: HubServer) -> None:
    hub.repositories[REPOSITORY.upper()] = hub.repositories[REPOSITORY]
    hub.content |= {k.replace(REPOSITORY, REPOSITORY.upper()): v for k, v in hub.content.items()}
    done = get(hub, REPOSITORY.upper())
    assert done.model.path == models_dir() / REPOSITORY / FILE
    assert not get(hub).fetched


def test_nothing_else_is_asked_of_the_hub(hub: HubServer) -> None:
    """huggingface_hub would tell it which program it runs in."""
    shutil.rmtree(models_dir(), ignore_errors=True)
    get(hub)
    paths = [path for _, path, _ in hub.asked]
    assert paths[0] == f"/api/models/{REPOSITORY}?blobs=true"
    assert len(paths) == 3


def test_a_repository_that_was_renamed_is_found_by_the_name_it_was_pulled_by(
    hub: HubServer,
) -> None:
    hub.repositories[REPOSITORY]["id"] = "new-owner/renamed-GGUF"
    done = get(hub)
    assert done.model.record.repository == REPOSITORY
    assert get(hub) == Pulled(model=done.model, fetched=False)
    assert find_stored(REPOSITORY, "Q4_K_M") == done.model


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("size", "big"),
        ("size", -5),
        ("size", 1.5),
        ("size", True),
        ("size", 10**30),
        ("rfilename", 5),
        ("rfilename", None),
    ],
)
@pytest.mark.parametrize("large", [True, False])
def test_values_of_the_hub_that_cannot_be(
    hub: HubServer, key: str, value: object, large: bool
) -> None:
    sibling = hub.repositories[REPOSITORY]["siblings"][0 if large else 1]
    (sibling["lfs"] if large and key == "size" else sibling)[key] = value
    with pytest.raises(DownloadError, match="not as the hub does"):
        get(hub)
    assert there() == []


def test_a_card_of_the_hub_that_is_none(hub: HubServer) -> None:
    hub.repositories[REPOSITORY]["cardData"] = "x"
    with pytest.raises(DownloadError, match="not as the hub does"):
        get(hub)


@pytest.mark.parametrize("token", ["hf_secret123\n", " hf_secret123 "])
def test_blanks_around_a_token_are_dropped(hub: HubServer, token: str) -> None:
    hub.token = "hf_secret123"
    hub.private.add(REPOSITORY)
    assert get(hub, hf_token=token).fetched


@pytest.mark.parametrize("token", ["hf_se\ncret", "hf_se cret", "hf_s\u00e9cret", "hf_\x7fsecret"])
def test_a_token_that_cannot_be_is_never_shown(hub: HubServer, token: str) -> None:
    with pytest.raises(SettingsError, match="HF_TOKEN") as caught:
        get(hub, hf_token=token)
    assert token not in str(caught.value)
    assert "cret" not in str(caught.value)
    assert hub.asked == []


@pytest.mark.parametrize(
    ("names", "shown", "reason"),
    [
        (["my model-q4_k_m.gguf"], "my model-q4_k_m.gguf", "its name has other characters"),
        (["m\u00fcller-q4_k_m.gguf"], "m\\xfcller-q4_k_m.gguf", "its name has other characters"),
        (["a-q4_k_m.GGUF"], "a-q4_k_m.GGUF", "its name has other characters"),
        (["mmproj-f16.gguf"], "mmproj-f16.gguf", "goes with a model and is none"),
        (["a-q4_k_m-00001-of-00002.gguf"], "00001-of-00002.gguf", "other parts of it are missing"),
        (["x/a-q4_k_m.gguf", "y/a-q4_k_m.gguf"], "a-q4_k_m.gguf", "several folders"),
    ],
)
def test_gguf_files_that_cannot_be_used_are_named(
    hub: HubServer, names: list[str], shown: str, reason: str
) -> None:
    hub.publish(REPOSITORY, dict.fromkeys(names, model()))
    with pytest.raises(ModelError, match="has GGUF files, but none") as caught:
        get(hub)
    assert f"{shown} ({reason}" in caught.value.message


@pytest.mark.parametrize("of_the_file", [True, False])
@pytest.mark.parametrize("target", ["self", "file:///etc/passwd"])
def test_redirects_that_lead_nowhere(hub: HubServer, target: str, of_the_file: bool) -> None:
    path = f"/{REPOSITORY}/resolve/{COMMIT}/{FILE}" if of_the_file else f"/api/models/{REPOSITORY}"
    hub.statuses[path] = (302, {"Location": path if target == "self" else target})
    with pytest.raises(DownloadError, match="redirects to where nothing can be fetched") as caught:
        get(hub)
    assert "HF_ENDPOINT" in caught.value.fix
    assert "online" not in caught.value.fix


def test_a_mirror_is_named_where_it_refuses(hub: HubServer) -> None:
    hub.gated.add(REPOSITORY)
    with pytest.raises(DownloadError) as caught:
        get(hub)
    assert f"Accept its licence at {hub.url}/{REPOSITORY}" in caught.value.fix
    with pytest.raises(DownloadError) as caught:
        get(hub, "acme/none-GGUF")
    assert f"{hub.url}/acme/none-GGUF" in caught.value.fix
