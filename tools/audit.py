"""Known vulnerabilities of everything that the lock file pins: `make audit`.

pip-audit asks a service on the network (PyPI's, else OSV). Where neither can be asked, nothing is
known, and that is said: it is not the same as nothing found.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LOCK = Path(__file__).parent.parent / "requirements-dev.lock"
SERVICES = ("pypi", "osv")


@dataclass(frozen=True, kw_only=True)
class Audit:
    """What one service knows of the pinned packages."""

    audited: int
    """Packages of which the service knows something."""
    unknown: tuple[str, ...]
    vulnerable: tuple[str, ...]
    """One line per vulnerability: package, version, its name, and the versions that mend it."""

    @classmethod
    def of(cls, report: dict[str, Any]) -> Audit:
        """From pip-audit's JSON report."""
        packages = report["dependencies"]
        known = [each for each in packages if "skip_reason" not in each]
        return cls(
            audited=len(known),
            unknown=tuple(each["name"] for each in packages if "skip_reason" in each),
            vulnerable=tuple(
                f"{each['name']} {each['version']}: {flaw['id']}; mended in "
                f"{', '.join(flaw['fix_versions']) or 'no version'}"
                for each in known
                for flaw in each["vulns"]
            ),
        )


def ask(service: str) -> Audit | None:
    """What `service` knows; None when it cannot be asked."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pip_audit", "--requirement", str(LOCK)),
            *("--require-hashes", "--disable-pip", "--vulnerability-service", service),
            *("--format", "json", "--progress-spinner", "off", "--timeout", "15"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        return Audit.of(json.loads(done.stdout))
    except ValueError:  # it failed before it had a report
        sys.stderr.write(f"{service}: {done.stderr.strip().rpartition(chr(10))[2][:300]}\n")
        return None


def main() -> int:
    """0 when nothing is known to be vulnerable, 1 when something is."""
    answers = (ask(service) for service in SERVICES)
    audit = next((each for each in answers if each is not None and each.audited), None)
    if audit is None:
        print("NOT AUDITED: no service for advisories can be asked from here.")
        return 0
    for line in audit.vulnerable:
        print(line)
    unknown = f"; unknown to the service: {', '.join(audit.unknown)}" if audit.unknown else ""
    print(f"{audit.audited} packages audited, {len(audit.vulnerable)} vulnerabilities{unknown}")
    return 1 if audit.vulnerable else 0


if __name__ == "__main__":
    sys.exit(main())
