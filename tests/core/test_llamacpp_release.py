"""Which archives of a release fit a machine, by their names."""

from __future__ import annotations

import pytest

from agent.core.errors import DownloadError
from agent.core.llamacpp_release import (
    Release,
    System,
    Variant,
    is_tag,
    parse_release,
    pick,
)

LINUX = System(name="Linux", machine="x86_64")
ARM = System(name="Linux", machine="aarch64")
MAC = System(name="Darwin", machine="arm64")
OLD_MAC = System(name="Darwin", machine="x86_64")

NAMES = (
    *("llama-b9-bin-macos-arm64.tar.gz", "llama-b9-bin-macos-x64.tar.gz"),
    *("llama-b9-bin-macos-arm64-kleidiai.tar.gz", "llama-b9-xcframework.zip"),
    *("llama-b9-bin-ubuntu-arm64.tar.gz", "llama-b9-bin-ubuntu-s390x.tar.gz"),
    *("llama-b9-bin-ubuntu-cuda-13.4-x64.tar.gz", "llama-b9-bin-ubuntu-cuda-12.8-x64.tar.gz"),
    *("llama-b9-bin-ubuntu-cuda-13.4-arm64.tar.gz", "llama-b9-bin-linux-arm64-snapdragon.tar.gz"),
    *("llama-b9-bin-ubuntu-openvino-2026.4-x64.tar.gz", "llama-b9-bin-ubuntu-rocm-10.0-x64.tar.gz"),
    *("llama-b9-bin-ubuntu-sycl-fp16-x64.tar.gz", "llama-b9-bin-ubuntu-vulkan-arm64.tar.gz"),
    *("llama-b9-bin-ubuntu-vulkan-x64.tar.gz", "llama-b9-bin-ubuntu-x64.tar.gz"),
    *("llama-b9-bin-win-cpu-x64.zip", "llama-b9-bin-win-vulkan-x64.zip"),
    *("cudart-llama-b9-bin-ubuntu-cuda-12.8-x64.tar.gz", "cudart-llama-bin-win-cuda-12.4-x64.zip"),
    *("cudart-llama-b9-bin-ubuntu-cuda-13.4-x64.tar.gz", "llama-b9-ui.tar.gz"),
    *("cudart-llama-b9-bin-ubuntu-cuda-13.4-arm64.tar.gz", "sha256sum.txt"),
)


def release(*names: str) -> Release:
    assets = [
        {"name": x, "browser_download_url": f"https://host/{x}", "size": 1, "digest": None}
        for x in names
    ]
    return parse_release({"tag_name": "b9", "assets": assets}, source="api")


@pytest.mark.parametrize(
    ("system", "variant", "expected"),
    [
        (LINUX, "cpu", ["llama-b9-bin-ubuntu-x64.tar.gz"]),
        (LINUX, "vulkan", ["llama-b9-bin-ubuntu-vulkan-x64.tar.gz"]),
        (
            LINUX,
            "cuda",
            [
                "llama-b9-bin-ubuntu-cuda-12.8-x64.tar.gz",
                "cudart-llama-b9-bin-ubuntu-cuda-12.8-x64.tar.gz",
            ],
        ),
        (
            ARM,
            "cuda",
            [
                "llama-b9-bin-ubuntu-cuda-13.4-arm64.tar.gz",
                "cudart-llama-b9-bin-ubuntu-cuda-13.4-arm64.tar.gz",
            ],
        ),
        (ARM, "cpu", ["llama-b9-bin-ubuntu-arm64.tar.gz"]),
        (ARM, "vulkan", ["llama-b9-bin-ubuntu-vulkan-arm64.tar.gz"]),
        (System(name="Linux", machine="s390x"), "cpu", ["llama-b9-bin-ubuntu-s390x.tar.gz"]),
        (MAC, "metal", ["llama-b9-bin-macos-arm64.tar.gz"]),
        (OLD_MAC, "cpu", ["llama-b9-bin-macos-x64.tar.gz"]),
    ],
)
def test_the_archives_that_fit(system: System, variant: str, expected: list[str]) -> None:
    chosen, assets = pick(release(*NAMES), system, [Variant(variant)])
    assert chosen == variant
    assert [x.name for x in assets] == expected


def test_older_releases_are_zips() -> None:
    older = release("llama-b9-bin-ubuntu-x64.zip", "llama-b9-bin-win-avx2-x64.zip")
    assert pick(older, LINUX, [Variant.CPU])[1][0].name == "llama-b9-bin-ubuntu-x64.zip"


def test_the_first_variant_that_is_published_is_taken() -> None:
    usual = [Variant.VULKAN, Variant.CPU]
    assert pick(release(*NAMES), LINUX, usual)[0] == "vulkan"
    assert pick(release(*NAMES), System(name="Linux", machine="s390x"), usual)[0] == "cpu"


@pytest.mark.parametrize(
    ("system", "variant", "way"),
    [
        (LINUX, "metal", "It has: cpu, cuda, vulkan"),
        (MAC, "vulkan", "It has: metal"),
        (System(name="FreeBSD", machine="amd64"), "cpu", "[portable]"),
        (System(name="Linux", machine="riscv64"), "cpu", "[portable]"),
    ],
)
def test_what_is_not_published(system: System, variant: str, way: str) -> None:
    with pytest.raises(DownloadError, match=f"b9 has no {variant} build") as caught:
        pick(release(*NAMES), system, [Variant(variant)])
    assert way in caught.value.fix


@pytest.mark.parametrize(
    "answer",
    [
        *(None, [], "x", {}, {"message": "Not Found"}, {"tag_name": "b9"}),
        {"tag_name": "../b9", "assets": []},
        {"tag_name": "b9", "assets": [{"name": "x"}]},
        {"tag_name": "b9", "assets": [7]},
    ],
)
def test_an_answer_of_another_form(answer: object) -> None:
    with pytest.raises(DownloadError, match="api answered, but not as") as caught:
        parse_release(answer, source="api")
    assert "TURBO_RELEASES_URL" in caught.value.fix


@pytest.mark.parametrize(
    ("digest", "kept"),
    [("sha256:" + "AB" * 32, "ab" * 32), ("sha256:abc", ""), ("md5:" + "0" * 64, ""), (None, "")],
)
def test_only_a_sha256_digest_counts(digest: str | None, kept: str) -> None:
    asset = {"name": "x", "browser_download_url": "u", "size": 1, "digest": digest}
    made = parse_release({"tag_name": "b9", "assets": [asset]}, source="api")
    assert made.assets[0].sha256 == kept


@pytest.mark.parametrize(("text", "good"), [("b9828", True), ("v1.0-rc_1", True), ("..", False)])
def test_tags(text: str, good: bool) -> None:
    assert is_tag(text) is good
    for bad in ("", "a/b", "-x", " b1", "b1\n", "ü"):
        assert not is_tag(bad)
