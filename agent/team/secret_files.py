"""Which files of the repository no prompt shows: those that hold secrets, and those git ignores.

What a file is called is enough for some; source code and the like are judged by what they hold.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Collection, Sequence
from pathlib import PurePosixPath

from agent.core.errors import NotText
from agent.core.secret_shapes import kind_of_secret

_DATA = r"(?:json|ya?ml|ini|toml|xml|csv|txt|properties|env|conf|cfg|enc|gpg)"
_NAMES = re.compile(
    r"\.env(?!\.(?:example|sample|template|dist|defaults)$)(?:\..+)?"
    r"|(?!\.env).+\.env(?:\.local)?|\.envrc"
    r"|.+\.(?:pem|key|p12|pfx|jks|keystore|kdbx|ppk|tfstate|tfvars|ovpn)"
    r"|id_(?:rsa|dsa|ecdsa|ed25519)(?:_sk)?"
    r"|[._]netrc|\.pgpass|\.my\.cnf|\.htpasswd|\.git-credentials|\.pypirc|\.dockercfg|\.s3cfg"
    r"|\.vault-token|\.?kubeconfig|.+\.kubeconfig"
    rf"|\.?(?:credentials?|secrets?)(?:\.{_DATA})?"
    r"|.*service[-_]?account.*\.json|client_secret.*\.json|.+-firebase-adminsdk-.*\.json",
    re.IGNORECASE,
)
_PLACES = re.compile(r"(?:^|/)(?:\.aws/credentials|\.docker/config\.json|\.kube/config)$")
_ACCOUNT = re.compile(r'"private_key"\s*:\s*"-----BEGIN|client-key-data:\s*\S{40}')
_MOST_TOLD = 10
_MOST_LOOKED_AT = 4 << 20
"""Characters. No context takes more, so that no prompt shows a larger file."""

Read = Callable[[str], Awaitable[str | None]]


class FileReader:
    """Reads files for prompts. A secret one is no text to it, also where it does not exist yet."""

    def __init__(self, read: Read, ignored: Collection[str] = ()) -> None:
        self._read = read
        self._ignored = frozenset(ignored)
        self._left_out: dict[str, str] = {}

    async def read(self, path: str) -> str | None:
        """The text; None when there is no such file. Raises NotText."""
        reason = self.refused(path)
        content = None if reason else await self._read(path)
        if content is not None and len(content) <= _MOST_LOOKED_AT:
            reason = await asyncio.to_thread(secret_of, content)
        if reason is not None:
            self._left_out[path] = reason
            raise NotText(path, reason)
        return content

    def refused(self, path: str) -> str | None:
        """Why the file of that name is not shown, whatever it holds."""
        if path in self._ignored:
            return "is ignored by git"
        return secret_name(path)

    def shown(self, files: Sequence[str]) -> list[str]:
        """Those of `files` whose names may be shown."""
        kept = []
        for path in files:
            reason = self.refused(path)
            if reason is None:
                kept.append(path)
            else:
                self._left_out[path] = reason
        return kept

    @property
    def left_out_paths(self) -> Collection[str]:
        """The files that were left out so far."""
        return self._left_out.keys()

    def left_out(self) -> str:
        """A line about the files that were left out so far; empty when there is none."""
        told = [f"{path} ({reason})" for path, reason in sorted(self._left_out.items())]
        more = len(told) - _MOST_TOLD
        if more > 0:
            told = [*told[:_MOST_TOLD], f"and {more} more"]
        return f"Not shown to the model: {', '.join(told)}" if told else ""


def secret_name(path: str) -> str | None:
    """Why a file of that name is taken for one that holds secrets; None when it is not."""
    if _NAMES.fullmatch(PurePosixPath(path).name) or _PLACES.search(path):
        return "has the name of a file with secrets"
    return None


def secret_of(content: str) -> str | None:
    """What secret a text holds, as a reason not to show it; None when it holds none."""
    kind = kind_of_secret(content)
    if kind is None and _ACCOUNT.search(content):
        kind = "private key"
    return f"holds what looks like a secret ({kind})" if kind else None
