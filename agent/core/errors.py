"""Every failure that a user can meet, as one tree.

::

    TurboError                     exit code 1 unless a subclass says otherwise
    |- UsageError                  2  the command line or the settings are wrong
    |  |- SettingsError            2  a setting is unknown or has a wrong value
    |  |- TaskFileError            2  a task file is wrong; names file, line and key
    |  |- SandboxError             2  commands are to be isolated, and cannot be here
    |  |- WorkspaceError           2  not a git repository, empty, or in a state we refuse
    |  |  `- NotText               2  a file that is no UTF-8 text
    |  `- PromptError              2  a template in prompts/ is missing or wrongly filled
    |- EngineError                 3  model, server or backend
    |  |- ModelError               3  no such model, or not a model
    |  |- BinaryError              3  no llama-server that runs here
    |  |- DownloadError            3  something could not be fetched from the internet
    |  |- ServerError              3  the server did not start, died, or does not answer
    |  `- BackendError             3  a request failed
    |     |- BackendUnavailable    3  connection refused or lost, 503
    |     |- BackendStalled        3  no token and no progress for the stall timeout
    |     |- ContextTooSmall       3  prompt plus answer exceed the served context
    |     |- RequestRefused        3  the server understood the request and does not do it
    |     |- GarbledOutput         3  the server could not send what the model wrote
    |     `- BadAnswer             1  the answer is not what the role asked for
    |- CommandError                1  a command could not be started at all
    `- EditError                   1  an answer cannot be applied to the file

Each message says what happened; `fix` says what to do about it. Expected failures are printed
without a traceback; anything that is not a TurboError is a bug and keeps its traceback.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


class TurboError(Exception):
    """Base of all expected failures."""

    exit_code = 1

    def __init__(self, message: str, *, fix: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix
        """What the user can do, one or two sentences; empty when there is nothing to say."""

    def __str__(self) -> str:
        return f"{self.message}\n{self.fix}" if self.fix else self.message


class UsageError(TurboError):
    """The command line does not make sense."""

    exit_code = 2


class SettingsError(UsageError):
    """A setting is unknown or has a value that does not fit."""


class TaskFileError(UsageError):
    """A task file is wrong. `line` counts from 1; 0 when the whole file is meant."""

    def __init__(
        self, source: str, reason: str, *, line: int = 0, key: str = "", fix: str = ""
    ) -> None:
        where = f"{source}:{line}" if line else source
        what = f"{key}: {reason}" if key else reason
        super().__init__(f"{where}: {what}", fix=fix)
        self.source = source
        self.line = line
        self.key = key


class SandboxError(UsageError):
    """Commands are to be isolated, and this machine does not let us."""


class WorkspaceError(UsageError):
    """The target is no git repository, has no commit, or is in a state that we refuse."""


class NotText(WorkspaceError):
    """A file that was to be shown or edited is no regular file of UTF-8 text."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(
            f"{path} {reason}", fix="Only regular files of UTF-8 text can be shown or edited."
        )
        self.path = path


class PromptError(UsageError):
    """A prompt template is missing, or its placeholders and the given values differ."""

    def __init__(self, name: str, *, missing: Sequence[str], unused: Sequence[str]) -> None:
        parts = []
        if missing:
            parts.append("no value for " + ", ".join(missing))
        if unused:
            parts.append("no placeholder for " + ", ".join(unused))
        super().__init__(
            f"prompt {name}: {'; '.join(parts)}",
            fix="Compare the {{placeholders}} of that file in prompts/ with the shipped one.",
        )


class EngineError(TurboError):
    """Model, server or backend: nothing that the task could mend."""

    exit_code = 3


class ModelError(EngineError):
    """No model file there, or the file is no usable GGUF model."""

    def __init__(
        self, path: Path, reason: str, *, available: Sequence[Path] = (), fix: str = ""
    ) -> None:
        message = f"model {path}: {reason}"
        if available:
            message += "\nModels that are there:" + "".join(f"\n  {name}" for name in available)
        super().__init__(message, fix=fix)
        self.path = path
        self.available = tuple(available)


class BinaryError(EngineError):
    """No llama-server binary could be found or run."""


class DownloadError(EngineError):
    """A file or an answer could not be fetched from the internet, or is not what was published."""

    def __init__(
        self, message: str, *, fix: str, status: int | None = None, code: str = ""
    ) -> None:
        super().__init__(message, fix=fix)
        self.status = status
        """HTTP status of the answer; None when there was none."""
        self.code = code
        """What the service calls the reason; empty when it names none."""


class ServerError(EngineError):
    """llama-server did not become ready, died, or stopped answering."""

    def __init__(
        self, message: str, *, log: Path | None = None, log_tail: str = "", fix: str = ""
    ) -> None:
        text = message
        if log_tail:
            text += "\nEnd of its log:\n" + "\n".join(f"  | {x}" for x in log_tail.splitlines())
        if log is not None:
            text += f"\nWhole log: {log}"
        super().__init__(text, fix=fix)
        self.log = log


class ServerDied(ServerError):
    """llama-server ended before it was ready."""

    def __init__(self, message: str, *, kind: str, log: Path, log_tail: str, fix: str) -> None:
        super().__init__(message, log=log, log_tail=log_tail, fix=fix)
        self.kind = kind
        """Cause, one of those in server_deaths.py."""


class BackendError(EngineError):
    """A request to the backend failed."""


class BackendUnavailable(BackendError):
    """Nothing listens, the connection broke, or the server still loads (503)."""


class BackendStalled(BackendError):
    """Neither a token nor progress arrived within the stall timeout."""


class ContextTooSmall(BackendError):
    """The prompt and its answer do not fit into the served context; refused before sending."""

    def __init__(self, *, prompt: int, answer: int, context: int, setting: str) -> None:
        super().__init__(
            f"The prompt has {prompt} tokens and its answer may have {answer}, "
            f"but a slot serves {context}.",
            fix=f"Raise {setting} to at least {prompt + answer}, show fewer files "
            "(context: in the task file), or split the task.",
        )
        self.prompt = prompt
        self.answer = answer
        self.context = context


class RequestRefused(BackendError):
    """The server understood the request and does not do it: 400, 404, 501 and their like."""


class GarbledOutput(BackendError):
    """The model wrote bytes that are no UTF-8 and the server gave up on the reply."""


class BadAnswer(BackendError):
    """The answer does not have the form that the role asked for."""

    exit_code = 1


class CommandError(TurboError):
    """A command could not be started at all; a failing command is a result, not an error."""


class EditError(TurboError):
    """What the coder answered cannot be applied."""
