"""A full disk and too few open files are errors with a way out, whoever met them."""

from __future__ import annotations

import errno
import sqlite3
from pathlib import Path

import pytest

from agent.core.errors import WorkspaceError
from agent.core.journal import Journal
from agent.core.shortage import shortage


def lacking(number: int) -> OSError:
    return OSError(number, "why")


def of_sqlite(code: int) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("database or disk is full")
    error.sqlite_errorcode = code
    return error


@pytest.mark.parametrize(
    ("error", "fix"),
    [
        (lacking(errno.ENOSPC), "Make room"),
        (lacking(errno.EDQUOT), "Make room"),
        (lacking(errno.EMFILE), "ulimit -n"),
        (of_sqlite(sqlite3.SQLITE_FULL), "Make room"),
        (ExceptionGroup("several", [ValueError(), lacking(errno.ENOSPC)]), "Make room"),
        (lacking(errno.EPIPE), None),
        (of_sqlite(sqlite3.SQLITE_CORRUPT), None),
        (ValueError(), None),
    ],
)
def test_what_is_lacking_is_told_from_what_is_wrong(error: Exception, fix: str | None) -> None:
    found = shortage(error, Path("/place"))
    assert (found is None) is (fix is None)
    if found is not None and fix is not None:
        assert fix in found.fix
        assert found.exit_code == 2


def test_a_journal_on_a_full_disk_fails_once_and_the_listeners_go_on() -> None:
    heard: list[str] = []
    journal = Journal((lambda event, _: heard.append(event),))
    journal.open(Path("/dev/full"))
    with pytest.raises(WorkspaceError, match="/dev/full") as caught:
        journal.emit("plan_ready")
    assert "Make room" in caught.value.fix
    journal.emit("run_finished")
    journal.close()
    assert heard == ["run_finished"]
