"""Commands that carry out runs: how they begin, and how they end whatever happens."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from agent.core.errors import TurboError

if TYPE_CHECKING:
    from agent.core.journal import Journal
    from agent.team.report import Reporter
    from agent.team.result import Ledger


class Reported(SystemExit):
    """The end of a run that has told its outcome itself."""

    def __init__(self, exit_code: int) -> None:
        super().__init__(exit_code)
        self.exit_code = exit_code


def in_session(
    work: Callable[[Reporter, Journal, Ledger], int], *, as_json: bool, verbose: bool, quiet: bool
) -> None:
    """Do `work`, which returns the exit code, and tell its outcome however it ends."""
    from agent.core.signals import Interrupted, raise_interrupted

    with raise_interrupted():
        from agent.core.config import secret_values
        from agent.core.journal import Journal
        from agent.core.redaction import Redactor
        from agent.core.shortage import shortage
        from agent.team.report import Reporter
        from agent.team.result import Ledger

        ledger = Ledger()
        redactor = Redactor(secret_values())
        with Reporter.for_terminal(
            as_json=as_json, verbose=verbose, quiet=quiet, redactor=redactor
        ) as reporter:
            try:
                code = work(reporter, Journal((reporter.on_event,), redactor), ledger)
            except TurboError as error:
                code = reporter.end_failed(error, ledger)
            except Interrupted as stopped:
                code = reporter.end_interrupted(ledger, stopped.exit_code)
            except KeyboardInterrupt:  # a second Ctrl-C
                code = reporter.end_interrupted(ledger)
            except OSError as error:
                lacking = shortage(error, Path.cwd())
                if lacking is None:
                    reporter.end_in_bug(error, ledger)
                    raise
                code = reporter.end_failed(lacking, ledger)
            except BaseException as bug:
                reporter.end_in_bug(bug, ledger)
                raise
    raise Reported(code)
