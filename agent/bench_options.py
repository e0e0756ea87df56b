"""What `turbo bench` is asked for, refused where it makes no sense before anything is measured."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path

from agent.core.errors import UsageError

_BACKENDS = ("llamacpp", "ollama")


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where the report goes instead of, or besides, the terminal."""

    json: Path | None
    markdown: Path | None
    csv: Path | None

    @property
    def files(self) -> list[Path]:
        """Those that are files."""
        return [x for x in (self.json, self.markdown, self.csv) if x and str(x) != "-"]

    @property
    def on_output(self) -> list[Path]:
        """Those that are standard output."""
        return [x for x in (self.json, self.markdown, self.csv) if x and str(x) == "-"]


def backends_of(compare: str | None) -> list[str]:
    """The backends of --compare, none when it is not given. Raises UsageError."""
    if compare is None:
        return []
    if not compare.strip():
        raise UsageError("--compare names no backends.", fix="As in --compare llamacpp,ollama")
    names = [name.strip().lower() for name in compare.split(",")]
    for name in names:
        if name not in _BACKENDS:
            near = difflib.get_close_matches(name, _BACKENDS, n=1)
            raise UsageError(
                f"--compare: {name or 'nothing'} is no backend.",
                fix=f"Did you mean {near[0]}?" if near else f"There are {', '.join(_BACKENDS)}.",
            )
    if len(set(names)) < max(2, len(names)):
        raise UsageError(
            "--compare takes two different backends.", fix="As in --compare llamacpp,ollama"
        )
    return names


def task_file_of(name: str | None) -> Path | None:
    """The file of --task. Raises UsageError."""
    if name is None:
        return None
    path = Path(name)
    if not name.strip() or path.is_dir() or not path.exists():
        wrong = "is a folder" if path.is_dir() else "no such file"
        raise UsageError(
            f"--task {name}: {wrong}." if name.strip() else "--task names no file.",
            fix="Give a task file, or leave --task out to run the demo.",
        )
    return path


def too_long(answer: int, context: int, *, needed: int) -> UsageError:
    """The error when answers of so many tokens leave no room in a context that would have to be
    `needed` tokens long."""
    return UsageError(
        f"--answer-tokens: answers of {answer} tokens and a prompt do not fit into the context of "
        f"{context} tokens.",
        fix=f"Ask for shorter answers, or raise LLAMACPP_CONTEXT_SIZE to {needed} or more.",
    )


def check_places(wanted: Places) -> None:
    """Raise UsageError when a part of the report could not be written at the end, or would be
    written over another one."""
    if len(wanted.on_output) > 1:
        raise UsageError(
            "Only one of --json, --markdown and --csv can go to standard output.",
            fix="Name files for the others.",
        )
    resolved = [path.resolve() for path in wanted.files]
    if len(set(resolved)) < len(resolved):
        raise UsageError(
            "--json, --markdown and --csv are to be written to the same file.",
            fix="Give each a file of its own.",
        )
    for path in wanted.files:
        there = path.exists()
        try:
            with path.open("a", encoding="utf-8"):
                pass
            if not there:
                path.unlink()
        except OSError as error:
            raise UsageError(
                f"{path} cannot be written: {error.strerror or error}",
                fix="Name a file in a folder that exists and is yours.",
            ) from None
