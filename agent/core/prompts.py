"""Load ``prompts/*.md`` and fill them strictly.

A template holds placeholders of the form ``{{name}}``. Everything before the first one is the
same for every request of that role: it belongs to the shared prefix and is computed once. What
follows is volatile. Code never embeds words that a model reads; it only fills templates.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path

from agent.core.errors import PromptError

_PLACEHOLDER = re.compile(r"\{\{(\w+)\}\}")


@dataclass(frozen=True)
class Template:
    """One prompt file."""

    name: str
    text: str

    @cached_property
    def placeholders(self) -> frozenset[str]:
        """Names that `fill` must be given, all of them and no others."""
        return frozenset(_PLACEHOLDER.findall(self.text))

    @cached_property
    def fixed(self) -> str:
        """The text before the first placeholder: the same bytes in every request."""
        return _PLACEHOLDER.split(self.text, maxsplit=1)[0]

    def fill(self, **values: str) -> str:
        """The whole text with every placeholder replaced.

        Values are inserted as they are: a placeholder inside a value stays untouched.
        Raises PromptError for a placeholder without a value or a value without a placeholder.
        """
        missing = self.placeholders - values.keys()
        unused = values.keys() - self.placeholders
        if missing or unused:
            raise PromptError(self.name, missing=sorted(missing), unused=sorted(unused))
        return _PLACEHOLDER.sub(lambda match: values[match[1]], self.text)


@dataclass(frozen=True)
class Prompt:
    """One request, in the order that keeps prefixes shared (``product.md``, prompt order).

    `system` and `shared` are the same bytes for every role of a run, `role` for every request of
    one role; only `volatile` changes from request to request.
    """

    system: str
    shared: str
    role: str
    volatile: str

    @property
    def user(self) -> str:
        """The one user message."""
        return self.shared + self.role + self.volatile

    @property
    def messages(self) -> list[dict[str, str]]:
        """One system message, then one user message: the only shape all chat templates accept."""
        return [
            {"role": "system", "content": self.system},
            {"role": "user", "content": self.user},
        ]


@dataclass(frozen=True)
class PromptBook:
    """All templates of one folder."""

    templates: dict[str, Template]

    @classmethod
    def load(cls, folder: Path | None = None) -> PromptBook:
        """Read every ``*.md`` of `folder`, or the prompts that ship with the package.

        Raises PromptError when the folder holds none.
        """
        root = folder if folder is not None else packaged_prompts()
        found = {path.stem: Template(path.stem, _read(path)) for path in sorted(root.glob("*.md"))}
        if not found:
            raise PromptError(str(root), missing=["*.md"], unused=[])
        return cls(found)

    def template(self, name: str) -> Template:
        """The template of that name. Raises PromptError when there is none."""
        try:
            return self.templates[name]
        except KeyError:
            raise PromptError(name, missing=[f"{name}.md"], unused=[]) from None

    def fill(self, name: str, **values: str) -> str:
        """Fill a template that is no role of its own (an answer format, a hunk)."""
        return self.template(name).fill(**values).rstrip("\n")

    def prompt(
        self, role: str, *, repository: str, task: str, files: str, **volatile: str
    ) -> Prompt:
        """Assemble the prompt of one role: ``planner``, ``coder``, ``repair`` or ``reviewer``."""
        template = self.template(role)
        filled = template.fill(**volatile)
        fixed = template.fixed
        return Prompt(
            system=self.template("system").text.rstrip("\n"),
            shared=self.template("shared").fill(repository=repository, task=task, files=files),
            role=fixed,
            volatile=filled[len(fixed) :].rstrip("\n"),
        )


def packaged_prompts() -> Path:
    """Where the prompts lie: inside the installed package, or beside it in a checkout."""
    installed = Path(str(files("agent"))) / "prompts"
    return installed if installed.is_dir() else Path(str(files("agent"))).parent / "prompts"


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")
