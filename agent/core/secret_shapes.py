"""What secrets look like: the forms that their issuers gave them, and nothing that is guessed.

Each form begins with words that hardly anything else holds, so that a digest, a commit id or a long
name is never taken for one, and a text without those words is passed over at once. That is why high
entropy alone is no form here, nor ``password = "..."``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_KEY_BLOCK = (
    r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----(?=.{0,300}?[A-Za-z0-9+/]{32})"
    r".*?(?:-----END (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----|\Z)"
)
"""With something like a key behind it: programs that read keys have the first line alone. A key
without its end goes to the end of the text."""
_GITLAB = ("glagent-", "gloas-")
_ALLOWED = re.compile(r"pragma: ?allowlist[ -]secret|gitleaks:allow")
"""On the line of something that only looks like a secret, as other scanners have it."""


@dataclass(frozen=True)
class Shape:
    """One form of secret."""

    name: str
    """For people."""
    pattern: str
    """A regular expression of the whole secret; group `s`, when there is one, is the secret."""
    hints: tuple[str, ...]
    """Words of which every text that holds one has at least one."""
    sure: bool = True
    """False for forms that examples and documentation have as well."""


SHAPES: Sequence[Shape] = (
    Shape("private key", _KEY_BLOCK, ("PRIVATE KEY",)),
    Shape("PuTTY key", r"PuTTY-User-Key-File-\d:[^\0]*?(?:Private-MAC: \w+|\Z)", ("PuTTY-User",)),
    Shape(
        "AWS key id",
        r"\b(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}\b(?<!EXAMPLE)",
        ("AKIA", "ASIA", "ABIA", "ACCA"),
    ),
    Shape(
        "AWS secret key",
        r"(?i:aws_?\w{0,20}(?:secret|key)\w{0,20}[\"']?\s{0,8}[:=]\s{0,8}[\"']?)"
        r"(?P<s>[A-Za-z0-9/+]{40})(?![A-Za-z0-9/+=])(?<!EXAMPLEKEY)",
        ("aws", "AWS", "Aws"),
    ),
    Shape(
        "GitHub token",
        r"\bgh[pousr]_[A-Za-z0-9]{36,255}\b",
        ("ghp_", "gho_", "ghu_", "ghs_", "ghr_"),
    ),
    Shape("GitHub token", r"\bgithub_pat_[A-Za-z0-9_]{40,255}\b", ("github_pat_",)),
    Shape(
        "GitLab token",
        r"\bgl(?:pat|dt|ft|soat|rt|cbt|imt|ptt|agent|oas)-[\w-]{20,}",
        tuple(
            f"gl{kind}-"
            for kind in ["pat", "dt", "ft", "soat", "rt", "cbt", "imt", "ptt", "agent", "oas"]
        ),
    ),
    Shape("OpenAI key", r"\bsk-(?:proj|svcacct|admin)-[\w-]{20,}", ("sk-proj", "sk-svc", "sk-adm")),
    Shape("OpenAI key", r"\bsk-[\w-]{0,80}T3BlbkFJ[\w-]{20,}", ("T3BlbkFJ",)),
    Shape("Anthropic key", r"\bsk-ant-[\w-]{20,}", ("sk-ant-",)),
    Shape("Hugging Face token", r"\b(?:hf|api_org)_[A-Za-z]{34}\b", ("hf_", "api_org_")),
    Shape("Slack token", r"\bxox[abeoprs]-[\w-]{10,}", ("xox",)),
    Shape("Slack token", r"\bxapp-\d-[\w-]{10,}", ("xapp-",)),
    Shape("webhook", r"https://hooks\.slack\.com/services/[\w/]{20,}", ("hooks.slack.com",)),
    Shape("webhook", r"https://discord(?:app)?\.com/api/webhooks/\d+/[\w-]{20,}", ("webhooks",)),
    Shape("Discord token", r"\b[MNO][\w-]{23,25}\.[\w-]{6}\.[\w-]{27,38}\b", (".",)),
    Shape("JSON web token", r"\beyJ[\w-]{8,}\.eyJ[\w-]{8,}(?:\.[\w-]*)?", ("eyJ",)),
    Shape("Google key", r"\bAIza[\w-]{35}", ("AIza",)),
    Shape("Google secret", r"\bGOCSPX-[\w-]{28}", ("GOCSPX-",)),
    Shape("Stripe key", r"\b[rs]k_(?:live|test)_[A-Za-z0-9]{16,}", ("k_live_", "k_test_")),
    Shape("SendGrid key", r"\bSG\.[\w-]{22}\.[\w-]{43}", ("SG.",)),
    Shape("PyPI token", r"\bpypi-AgE[\w-]{50,}", ("pypi-AgE",)),
    Shape("npm token", r"\bnpm_[A-Za-z0-9]{36}\b", ("npm_",)),
    Shape("npm token", r":_(?:authToken|auth|password)\s*=\s*(?P<s>[^\s${}]{8,})", (":_",)),
    Shape("Twilio key", r"\b(?:AC|SK)[0-9a-f]{32}\b", ("AC", "SK")),
    Shape("Telegram token", r"\b\d{8,10}:AA[\w-]{33}\b", (":AA",)),
    Shape("Mailchimp key", r"\b[0-9a-f]{32}-us\d{1,2}\b", ("-us",)),
    Shape("Square secret", r"\bsq0[ac]tp-[\w-]{22,}|\bsq0csp-[\w-]{43}", ("sq0",)),
    Shape("Azure key", r"\bAccountKey=(?P<s>[A-Za-z0-9+/=]{80,})", ("AccountKey=",)),
    Shape("Docker token", r"\bdckr_pat_[\w-]{27,}", ("dckr_pat_",)),
    Shape("DigitalOcean token", r"\bdo[opr]_v1_[a-f0-9]{64}\b", ("_v1_",)),
    Shape("age key", r"\bAGE-SECRET-KEY-1[A-Z0-9]{58}\b", ("AGE-SECRET-KEY-",)),
    Shape("Vault token", r"\bhv[sbr]\.[\w-]{24,}", ("hvs.", "hvb.", "hvr.")),
    Shape(
        "password in an address",
        r"\b[a-z][a-z0-9+.-]{1,20}://[^\s/:@\"'<>{}$]{0,100}:(?P<s>[^\s/@\"'<>{}$*\[]{3,200})@"
        r"(?=[\w\[])",
        ("://",),
        sure=False,
    ),
    Shape(
        "authorisation",
        r"(?i:authorization[\"']?\s{0,4}[:=]\s{0,4}[\"']?(?:bearer|basic|token)\s{1,4})"
        r"(?P<s>[\w.~+/=-]{16,})",
        ("uthorization", "UTHORIZATION"),
        sure=False,
    ),
)

_COMPILED = [(shape, re.compile(shape.pattern, re.DOTALL)) for shape in SHAPES]


@dataclass(frozen=True)
class Found:
    """One secret in a text."""

    shape: Shape
    start: int
    end: int


def find_secrets(text: str) -> Iterator[Found]:
    """What has the form of a secret in `text`, by kinds; some may overlap."""
    for shape, pattern in _COMPILED:
        if not any(hint in text for hint in shape.hints):
            continue
        group = "s" if "s" in pattern.groupindex else 0
        for match in pattern.finditer(text):
            yield Found(shape, match.start(group), match.end(group))


def kind_of_secret(text: str) -> str | None:
    """What kind of secret a file of this text holds for sure; None when it holds none. A line on
    which ``pragma: allowlist secret`` or ``gitleaks:allow`` stands does not count."""
    for found in find_secrets(text):
        if not found.shape.sure:
            continue
        begin = text.rfind("\n", 0, found.start) + 1
        end = text.find("\n", found.start)
        if not _ALLOWED.search(text, begin, end if end >= 0 else len(text)):
            return found.shape.name
    return None
