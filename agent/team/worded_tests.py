"""Tests of languages that are not parsed here: what they hold is counted by words, comments left
out.

No pattern may take more than linear time: a blank can begin a line a million times.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Language:
    """How tests look in one language. Every pattern is searched in text without comments."""

    test: re.Pattern[str]
    assertion: re.Pattern[str]
    skip: re.Pattern[str]
    """What keeps a test, or all others, from running."""
    leave: re.Pattern[str]
    """What ends the process."""
    empty: re.Pattern[str]
    """Assertions that always hold."""
    comment: re.Pattern[str]
    only_after: re.Pattern[str] | None = None
    """Where tests begin in a file that holds other things too."""


_SLASHES = re.compile(r"/\*[\s\S]*?(?:\*/|\Z)|^[ \t]*//.*$|(?<=[;{}\s])//.*$", re.MULTILINE)
_HASHES = re.compile(r"^[ \t]*#.*$|^=begin\b[\s\S]*?(?:^=end\b|\Z)", re.MULTILINE)
_NEVER = re.compile(r"(?!)")


def _words(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.MULTILINE)


_JAVASCRIPT = Language(
    test=_words(r"(?<![.\w])(?:it|test)(?:\.(?:each|only|concurrent|skip))*\s*[(`]"),
    assertion=_words(r"\bexpect\s*\(|\bassert\b(?:\.\w+)*\s*\(|\.should\b|\bt\.(?:is|deepEqual)\b"),
    skip=_words(
        r"\b(?:it|test|describe|context|suite)\.(?:skip|only|todo|failing|fixme|skipIf|runIf)\b"
        r"|(?<![.\w])(?:x|f)(?:it|test|describe|context)\s*\(|\bthis\.skip\s*\("
    ),
    leave=_words(r"\bprocess\.(?:exit|abort|kill|reallyExit)\s*\("),
    empty=_words(
        r"\bexpect\s*\(\s*(?:true|1)\s*\)\s*\.\s*(?:toBe|toEqual)\s*\(\s*(?:true|1)\s*\)"
        r"|\bexpect\s*\(\s*true\s*\)\s*\.\s*toBeTruthy\s*\(\s*\)"
        r"|\bassert(?:\.ok)?\s*\(\s*(?:true|1)\s*\)"
    ),
    comment=_SLASHES,
)
_GO = Language(
    test=_words(r"^func (?:Test|Example|Fuzz)\w*\s*\(|\b[tb]\.Run\s*\("),
    assertion=_words(r"\b[tb]\.(?:Error|Fatal|Fail)\w*\s*\(|\b(?:assert|require|is)\.\w+\s*\("),
    skip=_words(r"\b[tb]\.Skip\w*\s*\(|\btesting\.Short\s*\("),
    leave=_words(r"\bos\.Exit\s*\(|\bruntime\.Goexit\s*\(|\bsyscall\.(?:Exit|Kill)\s*\("),
    empty=_words(r"\b(?:assert|require)\.True\s*\(\s*t\s*,\s*true\s*\)"),
    comment=_SLASHES,
)
_RUST = Language(
    test=_words(r"#\[\s*(?:\w+::)*(?:test|rstest|test_case|quickcheck)\b"),
    assertion=_words(r"\b(?:debug_)?assert(?:_\w+)?!\s*[(\[{]|\bpanic!"),
    skip=_words(r"#\[\s*(?:ignore\b|cfg_attr\s*\([^\]]{0,200}\bignore\b|cfg\s*\(\s*any\s*\(\s*\))"),
    leave=_words(r"\bprocess::(?:exit|abort)\s*\("),
    empty=_words(r"\bassert!\s*\(\s*true\s*[,)]|\bassert_eq!\s*\(\s*(\w+)\s*,\s*\1\s*\)"),
    comment=_SLASHES,
    only_after=_words(r"#\[\s*cfg\s*\(\s*test\s*\)\s*\]|#\[\s*(?:\w+::)*test\b"),
)
_BRACES = Language(  # Java, Kotlin, C#, Scala, Swift, PHP, C, C++, Dart
    test=_words(
        r"@(?:\w+)?Test\b|\[(?:Fact|Theory|Test|TestMethod|TestCase)\b"
        r"|\bfunc(?:tion)? +test\w*\s*\(|(?<![.\w])(?:test|testWidgets)\s*\("
        r"|^[ \t]*(?:TEST|TEST_F|TEST_P|TEST_CASE|SCENARIO)\s*\("
    ),
    assertion=_words(
        r"\b[aA]ssert\w*\s*\(|\bAssert\.\w+\s*\(|\bXCT\w+\s*\(|\bverify\s*\(|\.[sS]hould\w*"
        r"|\b(?:ASSERT|EXPECT|CHECK|REQUIRE)\w*\s*\(|\bexpect\w*\s*\("
    ),
    skip=_words(
        r"@(?:Ignore|Disabled)\w*|\[Ignore\b|\bSkip\s*=|\bassume\w*\s*\(|\bmarkTest(?:Skipped|Incomplete)"
        r"|\bXCTSkip\w*|\bGTEST_SKIP\b|\bDISABLED_\w+|\bskip\s*:"
    ),
    leave=_words(
        r"\bSystem\.exit\s*\(|\bhalt\s*\(|\bEnvironment\.Exit\s*\(|\bexitProcess\s*\("
        r"|(?<![.\w])(?:_?exit|abort|quick_exit|die)\s*\("
    ),
    empty=_words(
        r"\b(?:Assert\.|Assertions\.|self::|\$this->)?(?:assert|ASSERT_|EXPECT_)(?i:true)\s*\(\s*true\s*\)"
        r"|\bAssert\.(?:True|IsTrue)\s*\(\s*true\s*\)"
    ),
    comment=_SLASHES,
)
_RUBY = Language(
    test=_words(r"^[ \t]*(?:it|specify|scenario|test|example)\b|^[ \t]*def test_"),
    assertion=_words(
        r"\bexpect\b|\b(?:assert|refute)\w*\b|\b(?:must|wont)_\w+|\.should(?:_not)?\b"
    ),
    skip=_words(r"^[ \t]*[xf](?:it|describe|context|specify|scenario)\b|\b(?:skip|pending|omit)\b"),
    leave=_words(r"(?<![.\w])(?:exit!?|abort)(?![\w:])|\bProcess\.(?:exit|kill)"),
    empty=_words(r"\bassert\b[ (]+true\b\)?|\bexpect\(true\)\.to\b.*$"),
    comment=_HASHES,
)
_ELIXIR = Language(
    test=_words(r"^[ \t]*(?:test|property)\b"),
    assertion=_words(r"\b(?:assert|refute)\w*\b"),
    skip=_words(r"@(?:module|describe)?tag\s*:?\(?:?\s*:?skip"),
    leave=_words(r"\bSystem\.(?:halt|stop)\b"),
    empty=_words(r"\bassert\b[ (]+true\b"),
    comment=_HASHES,
)
_BATS = Language(
    test=_words(r"^[ \t]*@test\b|^[ \t]*(?:function )?test_?\w*\s*\("),
    assertion=_words(r"\[\[? |\bassert\w*\b|^[ \t]*(?:run|test)\b"),
    skip=_words(r"^[ \t]*skip\b"),
    leave=_words(r"^[ \t]*exit 0\b"),
    empty=_NEVER,
    comment=_HASHES,
)

LANGUAGES: dict[str, Language] = {
    **dict.fromkeys((".js", ".jsx", ".mjs", ".cjs", ".ts", ".tsx", ".mts", ".cts"), _JAVASCRIPT),
    **dict.fromkeys((".vue", ".svelte"), _JAVASCRIPT),
    ".go": _GO,
    ".rs": _RUST,
    **dict.fromkeys((".java", ".kt", ".kts", ".scala", ".groovy", ".cs", ".swift"), _BRACES),
    **dict.fromkeys((".php", ".dart", ".c", ".cc", ".cpp", ".cxx", ".h", ".hpp"), _BRACES),
    ".rb": _RUBY,
    ".ex": _ELIXIR,
    ".exs": _ELIXIR,
    **dict.fromkeys((".bats", ".sh"), _BATS),
}
"""By suffix, in lower case."""


def weaker_words(language: Language, before: str, after: str) -> list[str]:
    """What was lost from `before` to `after`, as parts of sentences; empty when nothing was."""
    old, new = _tests_of(language, before), _tests_of(language, after)

    def count(pattern: re.Pattern[str], text: str) -> int:
        return sum(1 for _ in pattern.finditer(text))

    reasons = []
    for what, pattern in (("tests", language.test), ("assertions", language.assertion)):
        had, has = count(pattern, old), count(pattern, new)
        if has < had:
            reasons.append(f"{has} {what}, not {had} as before")
    for what, pattern in (("skips tests", language.skip), ("ends the process", language.leave)):
        if count(pattern, new) > count(pattern, old):
            known = [found.strip() for found in pattern.findall(old)]
            fresh = next((x.strip() for x in pattern.findall(new) if x.strip() not in known), "")
            reasons.append(f"{what}{f' with {fresh}' if fresh else ''}")
    return reasons


def _tests_of(language: Language, text: str) -> str:
    text = language.comment.sub("", text)
    if language.only_after is not None:
        begin = language.only_after.search(text)
        text = text[begin.start() :] if begin else ""
    return language.empty.sub("", text)
