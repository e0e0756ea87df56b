"""What is taken for a secret, what is not, and what becomes of texts that hold one."""

from __future__ import annotations

import json
import sys

import pytest
from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class
from hypothesis import given
from hypothesis import strategies as st

from agent.core.config import Settings, secret_values
from agent.core.journal import Journal
from agent.core.redaction import REDACTED, Redactor
from agent.core.secret_shapes import find_secrets, kind_of_secret

BODY = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQ" * 4
BEGIN, END = "-----BEGIN " + "RSA PRIVATE KEY-----", "-----END RSA PRIVATE KEY-----"
LETTERS = "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8s9T0u1V2w3X4y5Z6a7B8c9D0"
# Put together here, so that no scanner finds them in this file.
TOKENS = {
    "AWS Access Key": "AKIA" + "Q3EGRIXA7PLM2ZKT",
    "GitHub Token": "ghp" + "_" + LETTERS[:36],
    "GitLab Token": "glpat" + "-" + LETTERS[:20],
    "OpenAI Token": "sk-" + LETTERS[:20] + "T3Blb" + "kFJ" + LETTERS[:20],
    "Slack Token": "xoxb" + "-123456789012-123456789012-" + "abcdefghij",
    "Stripe Access Key": "sk" + "_live_" + LETTERS[:24],
    "SendGrid API Key": "SG" + "." + LETTERS[:22] + "." + LETTERS[:43],
    "PyPI Token": "pypi-" + "AgEIcHlwaS5vcmc" + LETTERS + LETTERS[:20],
    "JSON Web Token": "eyJ" + "hbGciOiJIUzI1NiJ9." + "eyJ" + "zdWIiOiJ0ZXN0ZXIifQ.c2lnbmF0dXJl",
    "Telegram Bot Token": "1234567890" + ":AA" + LETTERS[:33],
    "Twilio API Key": "SK" + "0123456789abcdef" * 2,
    "Mailchimp Access Key": "0123456789abcdef" * 2 + "-us12",
    "Square OAuth Secret": "sq0" + "csp-" + LETTERS[:43],
    "Discord Bot Token": "M" + LETTERS[:24] + "." + LETTERS[:6] + "." + LETTERS[:27],
    "Azure Storage Account access key": "AccountKey=" + (LETTERS * 2)[:86] + "==",
}
MORE = {
    "Anthropic key": "sk-ant-" + "api03-" + LETTERS[:40],
    "Hugging Face token": "hf" + "_" + "AbCdEfGhIjKlMnOpQrStUvWxYzAbCdEfGh",
    "GitHub fine-grained": "github" + "_pat_" + LETTERS[:22] + "_" + LETTERS[:50],
    "Google": "AIza" + "Sy" + LETTERS[:33],
    "npm": "npm" + "_" + LETTERS[:36],
    "private key": f"{BEGIN}\n{BODY}\n{END}",
    "key in JSON": json.dumps(f"{BEGIN}\n{BODY}\n{END}\n")[1:-1],
    "key without an end": f"{BEGIN}\n{BODY}",
    "age": "AGE-SECRET-" + "KEY-1" + "Q" * 58,
}


@pytest.mark.parametrize("kind", [*TOKENS, *MORE])
def test_a_token_goes_wholly_and_what_is_around_it_stays(kind: str) -> None:
    token = (TOKENS | MORE)[kind]
    value = token.removeprefix("AccountKey=")
    for before, after in (("key = '", "'\n"), ("see ", " there"), ("\t", "\n")):
        if kind == "key without an end" and after != "\n":
            continue
        shown = Redactor().text(f"{before}{token}{after}")
        assert value[:30] not in shown
        assert value[-20:] not in shown
        assert shown.startswith(before)
        assert REDACTED in shown
    assert kind_of_secret(f"x = {token}")


@pytest.mark.parametrize("kind", sorted(TOKENS))
def test_detect_secrets_takes_them_for_secrets_too(kind: str) -> None:
    """The samples are no invention of ours: another scanner knows each by the same name."""
    detector = get_mapping_from_secret_type_to_class()[kind]()
    assert list(detector.analyze_string(f'key = "{TOKENS[kind]}"'))


@pytest.mark.parametrize(
    "text",
    [
        "da39a3ee5e6b4b0d3255bfef95601890afd80709",  # a commit
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",  # a digest
        "token = os.environ['GITHUB_TOKEN']",
        "password: str = Field(min_length=8)",
        "AKIA" + "IOSFODNN7EXAMPLE",  # Amazon's own documentation
        f"if text.startswith('{BEGIN}'): raise BadKey",
        "https://user@example.com/path",
        "https://example.com:8080/a@b",
        "ssh://git@github.com:22/owner/repository.git",
        "postgres://${USER}:${PASSWORD}@db/main",
        "http://***@host/",
        "skipped: task-0123456789abcdefghijklmnopqrstuv",
        "from kit.double import double",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert Redactor().text(text) == text


def test_passwords_in_addresses_and_headers_go() -> None:
    shown = Redactor().text(
        "GET https://me:hunter2x@host/x\nAuthorization: Bearer abcdefghij0123456789"
    )
    assert shown == f"GET https://me:{REDACTED}@host/x\nAuthorization: Bearer {REDACTED}"
    assert kind_of_secret("see https://user:password@host") is None  # documentation has it too


def test_values_that_it_was_told_of_go_escaped_or_not() -> None:
    redactor = Redactor(['pa"ss\\word-1', "first line 1\nsecond line 2", "short", "testing"])
    redactor.hide(["longer-value-of-it", "longer-value-of-it-and-more"])
    assert redactor.text('a pa"ss\\word-1 b') == f"a {REDACTED} b"
    assert redactor.text(json.dumps('pa"ss\\word-1')) == f'"{REDACTED}"'
    assert redactor.text("  second line 2") == f"  {REDACTED}"
    assert redactor.text("longer-value-of-it-and-more!") == f"{REDACTED}!"
    assert redactor.text("short testing") == "short testing"


def test_what_of_the_environment_is_secret() -> None:
    environment = {
        "GITHUB_TOKEN": "one-of-github",
        "AWS_SECRET_ACCESS_KEY": "two-of-aws",
        "PGPASSWORD": "three-of-pg",
        "MYSQL_PWD": "four-of-mysql",
        "npm_config__auth": "five-of-npm",
        "HTTPS_PROXY": "http://me:six%2Dproxy@proxy:3128",
        "PWD": "/",
        "SSH_AUTH_SOCK": sys.executable,
        "TURBO_ANSWER_TOKENS": "10240000",
        "KEYBOARD": "seven-is-none",
        "PATH": "/usr/bin",
    }
    settings = Settings(llamacpp_api_key="eight-is-ours", ollama_local="http://a:nine-pass@box")
    assert secret_values(settings, environment) == {
        "one-of-github",
        "two-of-aws",
        "three-of-pg",
        "four-of-mysql",
        "five-of-npm",
        "six%2Dproxy",
        "six-proxy",
        "eight-is-ours",
        "nine-pass",
    }


def test_events_are_rewritten_before_anybody_gets_them(tmp_path: object) -> None:
    seen: list[object] = []
    journal = Journal((lambda event, data: seen.append(data),), Redactor(["value-of-mine"]))
    nested = {"steps": [{"text": "has value-of-mine"}], "count": 3, "ok": True, "none": None}
    journal.emit("plan_ready", plan=nested)
    journal.show("progress", phase="value-of-mine")
    assert seen == [
        {"plan": {**nested, "steps": [{"text": f"has {REDACTED}"}]}},
        {"phase": REDACTED},
    ]


@given(st.text(max_size=300))
def test_any_text_can_be_looked_at(text: str) -> None:
    once = Redactor().text(text)
    assert Redactor().text(once) == once
    assert all(0 <= found.start <= found.end <= len(text) for found in find_secrets(text))
