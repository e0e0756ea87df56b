"""What we depend on: written down, pinned, and looked at for known flaws."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tools import audit
from tools.audit import Audit

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
USED = [Requirement(x) for x in PROJECT["dependencies"]]
EXTRAS = {k: [Requirement(x) for x in v] for k, v in PROJECT["optional-dependencies"].items()}


def pinned() -> dict[str, list[Version]]:
    """The versions that the lock file has of each package; several for several platforms."""
    found: dict[str, list[Version]] = {}
    for name, version in re.findall(
        r"^([\w.-]+)==([^\s;]+)", (ROOT / "requirements-dev.lock").read_text(), re.MULTILINE
    ):
        found.setdefault(canonicalize_name(name), []).append(Version(version))
    return found


def test_every_dependency_has_a_reason() -> None:
    decision = (ROOT / "docs/decisions/024-dependencies.md").read_text()
    named = set(re.findall(r"[\w-]+", decision))
    wanted = {each.name for each in [*USED, *EXTRAS["dev"], *EXTRAS["portable"]]}
    assert wanted - named == set()


@pytest.mark.parametrize("wanted", [*USED, *EXTRAS["dev"]], ids=lambda each: each.name)
def test_the_lock_file_has_what_is_asked_for(wanted: Requirement) -> None:
    assert all(str(x.operator) != "==" for x in wanted.specifier), "bounds, not pins, for users"
    assert any(x.operator == ">=" for x in wanted.specifier)
    versions = pinned()[canonicalize_name(wanted.name)]
    assert versions
    assert all(version in wanted.specifier for version in versions)


def report(*dependencies: dict[str, object]) -> dict[str, object]:
    return {"dependencies": list(dependencies), "fixes": []}


SOUND = {"name": "sound", "version": "1.0", "vulns": []}
UNKNOWN = {"name": "unknown", "skip_reason": "Dependency not found"}
BROKEN = {
    "name": "broken",
    "version": "2.0",
    "vulns": [{"id": "PYSEC-1", "fix_versions": ["2.1"], "aliases": [], "description": ""}],
}


@pytest.mark.parametrize(
    ("answers", "code", "said"),
    [
        ({"pypi": report(SOUND, BROKEN)}, 1, "broken 2.0: PYSEC-1; mended in 2.1"),
        ({"pypi": report(SOUND, UNKNOWN)}, 0, "1 packages audited, 0 vulnerabilities; unknown"),
        ({"pypi": report(UNKNOWN), "osv": report(BROKEN)}, 1, "PYSEC-1"),
        ({"pypi": report(UNKNOWN)}, 0, "NOT AUDITED"),
    ],
)
def test_what_an_audit_says(
    answers: dict[str, dict[str, object]],
    code: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def ask(service: str) -> Audit | None:
        return Audit.of(answers[service]) if service in answers else None

    monkeypatch.setattr(audit, "ask", ask)
    assert audit.main() == code
    assert said in capsys.readouterr().out
