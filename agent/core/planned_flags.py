"""The flags of a command line, each with its reason; those that the binary lacks are kept too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agent.core.engine_choices import Choice, Origin
from agent.core.llamacpp_binary import Binary


@dataclass(frozen=True, kw_only=True)
class PlannedFlag:
    """One flag, or one that could not be given."""

    flag: str
    value: str
    """Empty for a flag that takes none."""
    why: str
    origin: Origin
    source: str = ""
    """The setting or the profile that asked for it."""

    @property
    def words(self) -> tuple[str, ...]:
        """Its part of the command line."""
        if self.origin == "refused":
            return ()
        return (self.flag, self.value) if self.value else (self.flag,)

    @property
    def said_by(self) -> str:
        """Where it comes from, in words."""
        if self.origin == "refused":
            return "refused by this binary"
        if self.origin == "memory":
            return "lowered to fit"
        return f"{self.origin} {self.source}".rstrip()


class FlagSheet:
    """Collects the flags of one binary in the order in which they are given."""

    def __init__(self, binary: Binary) -> None:
        self._binary = binary
        self._flags: list[PlannedFlag] = []

    @property
    def flags(self) -> tuple[PlannedFlag, ...]:
        """All of them, those that were refused included."""
        return tuple(self._flags)

    @property
    def argv(self) -> tuple[str, ...]:
        """Those that are given, as words."""
        return tuple(word for flag in self._flags for word in flag.words)

    def need(self, flag: str, value: object, why: str, choice: Choice | None = None) -> None:
        """A flag that every llama-server knows; find_binary() holds that."""
        self._append(flag, str(value), why, choice)

    def add(
        self,
        *spellings: Sequence[str],
        why: str,
        choice: Choice | None = None,
    ) -> bool:
        """The first of `spellings` (a flag and its value, if any) whose flag the binary knows; an
        empty one stands for what it does without a flag. False when it knows none."""
        for words in spellings:
            if not words:
                return True
            if self._binary.knows(words[0]):
                self._append(words[0], "".join(words[1:]), why, choice)
                return True
        flag, value = spellings[0][0], "".join(spellings[0][1:])
        source = choice.source if choice else ""
        self._flags.append(
            PlannedFlag(flag=flag, value=value, why=why, origin="refused", source=source)
        )
        return False

    def _append(self, flag: str, value: str, why: str, choice: Choice | None) -> None:
        self._flags.append(
            PlannedFlag(
                flag=flag,
                value=value,
                why=(choice.why if choice else "") or why,
                origin=choice.origin if choice else "default",
                source=choice.source if choice else "",
            )
        )
