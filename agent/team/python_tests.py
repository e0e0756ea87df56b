"""Python tests, as far as their source tells: which there are, what they assert, what skips them.

A test that is skipped, or expected to fail, is none. An assertion counts when it can be reached and
can fail: not behind a `return`, not under `if False`, not swallowed by a broad `except`.
"""

from __future__ import annotations

import ast
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

_IDLE = frozenset(
    {
        *("skip", "skipif", "skipIf", "skipUnless", "xfail", "expectedFailure", "skipTest"),
        *("importorskip", "SkipTest"),
    }
)
_IDLE_OWNERS = frozenset(("", "pytest", "mark", "unittest", "self", "cls"))
_EXITS = frozenset(
    ("sys.exit", "os._exit", "os.abort", "os.kill", "os.killpg", "exit", "quit", "pytest.exit")
)
_FAILING = frozenset(("raises", "warns", "fail", "deprecated_call"))
_TRUE = frozenset(("assertTrue", "assert_", "assertIsNotNone"))
_EQUAL = frozenset(("assertEqual", "assertEquals", "assertIs", "assertListEqual"))
_BROAD = frozenset(("Exception", "BaseException", "AssertionError"))
_ENDS = (ast.Return, ast.Raise, ast.Continue, ast.Break)

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, kw_only=True)
class Test:
    """One test function, or all cases of a parametrised one."""

    cases: int | None
    """None when they cannot be counted here."""
    asserts: Counter[str]
    """The assertions in one case, as text, with what helpers of the file assert for it."""

    @property
    def made(self) -> int:
        """Assertions in all cases."""
        return (self.cases or 0) * self.asserts.total()


@dataclass
class Tests:
    """What a file of tests holds."""

    live: dict[str, Test] = field(default_factory=dict)
    """By qualified name; those that run."""
    idle: set[str] = field(default_factory=set)
    """Names of those that are skipped or expected to fail."""
    all_skipped: bool = False
    """Something at the level of the module skips all of them."""
    exits: Counter[str] = field(default_factory=Counter)
    """Calls that end the process, where nothing waits for that."""

    @property
    def count(self) -> int:
        """Tests that run, case by case."""
        return sum(test.cases or 0 for test in self.live.values())

    @property
    def asserts(self) -> int:
        """Assertions that are made when all run."""
        return sum(test.made for test in self.live.values())


def weaker_python(before: str, after: str) -> list[str]:
    """What was lost from `before` to `after`, as parts of sentences; empty when nothing was, or
    when one of the two is no Python: then the tests say so."""
    old, new = _read(before), _read(after)
    if old is None or new is None:
        return []
    _count_alike(old, new)
    reasons = []
    if new.all_skipped and not old.all_skipped:
        reasons.append("a whole class or file is skipped")
    skipped = sorted(new.idle & old.live.keys())
    reasons += [f"{name} is skipped or expected to fail" for name in skipped]
    lost = sorted(old.live.keys() - new.live.keys() - new.idle)
    if new.count < old.count and not skipped:
        names = f" ({', '.join(lost)} removed)" if lost else ""
        reasons.append(f"{new.count} tests, not {old.count} as before{names}")
    emptied = list(_emptied(old, new))
    reasons += emptied
    if new.asserts < old.asserts and not reasons:
        reasons.append(f"{new.asserts} assertions that can fail, not {old.asserts} as before")
    reasons += [f"calls {name}()" for name in (new.exits - old.exits)]
    return reasons


def _count_alike(old: Tests, new: Tests) -> None:
    """Where the cases of one of the two cannot be counted, take them for as many as the other's."""
    for tests, others in ((new, old), (old, new)):
        for name, test in tests.live.items():
            if test.cases is None:
                other = others.live.get(name)
                cases = 1 if other is None or other.cases is None else other.cases
                tests.live[name] = replace(test, cases=cases)


def _emptied(old: Tests, new: Tests) -> Iterator[str]:
    """Tests of the same name that assert less, when what they lost is nowhere in the file."""
    everywhere: Counter[str] = Counter()
    for test in new.live.values():
        everywhere |= test.asserts
    for name, test in old.live.items():
        now = new.live.get(name)
        if now is None or now.made >= test.made:
            continue
        if now.asserts.total() >= test.asserts.total():
            yield f"{name} has {now.cases} cases, not {test.cases} as before"
        elif gone := [text for text in test.asserts if text not in everywhere]:
            yield f"{name} lacks: {gone[0][:160]}"


def _read(text: str) -> Tests | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an escape that is none is not our business
            tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    helpers = {
        node.name: _asserts(node.body, {})
        for node in ast.walk(tree)
        if isinstance(node, Function) and not node.name.startswith("test")
    }
    tests = Tests()
    try:
        _collect(tree.body, "", tests, helpers, idle=False)
        tests.exits = Counter(_exits(tree))
    except RecursionError:
        return None
    return tests


def _collect(
    body: Sequence[ast.stmt],
    inside: str,
    tests: Tests,
    helpers: dict[str, Counter[str]],
    *,
    idle: bool,
) -> None:
    for node in body:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() if node.name.startswith("test"):
                name = f"{inside}{node.name}"
                tests.live.pop(name, None)  # a later one of the same name hides it
                if idle or _is_idle(node):
                    tests.idle.add(name)
                else:
                    cases = _cases(node.decorator_list)
                    asserts = _asserts(node.body, helpers)
                    tests.live[name] = Test(cases=cases, asserts=asserts)
                    tests.idle.discard(name)
            case ast.ClassDef() if _is_collected(node):
                below = idle or _has_mark(node.decorator_list)
                _collect(node.body, f"{inside}{node.name}.", tests, helpers, idle=below)
            case ast.Assign() | ast.AnnAssign() | ast.Expr() if _marks_all(node):
                tests.all_skipped = True
            case ast.If() if not _is_constant(node.test, truth=False):
                _collect([*node.body, *node.orelse], inside, tests, helpers, idle=idle)
            case _:
                pass


def _is_collected(node: ast.ClassDef) -> bool:
    """Whether test runners look for tests in a class."""
    off = any(
        isinstance(each, ast.Assign)
        and any(isinstance(x, ast.Name) and x.id == "__test__" for x in each.targets)
        and _is_constant(each.value, truth=False)
        for each in node.body
    )
    return not off and (node.name.startswith("Test") or bool(node.bases))


def _marks_all(node: ast.Assign | ast.AnnAssign | ast.Expr) -> bool:
    """A statement of a module or class that skips everything in it."""
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Call) and _skips(node.value.func)
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    named = {x.id for x in targets if isinstance(x, ast.Name)}
    if "__test__" in named and node.value is not None:
        return _is_constant(node.value, truth=False)
    return "pytestmark" in named and node.value is not None and _has_mark([node.value])


def _has_mark(nodes: Sequence[ast.expr]) -> bool:
    return any(_skips(part) for node in nodes for part in ast.walk(node))


def _is_idle(node: Function) -> bool:
    """Marked, or skipped by its own body."""
    if _has_mark(node.decorator_list):
        return True
    for part in (part for each in node.body for part in ast.walk(each)):
        if isinstance(part, ast.Call) and _skips(part.func):
            return True
        if isinstance(part, ast.Raise) and _skips(part.exc):
            return True
    return False


def _skips(node: ast.AST | None) -> bool:
    """Whether an expression names what keeps tests from running, or from failing."""
    owner, _, last = _name(node).rpartition(".")
    return last in _IDLE and owner.rpartition(".")[2] in _IDLE_OWNERS


def _cases(decorators: Sequence[ast.expr]) -> int | None:
    """How many cases the decorators make; None when that is not written there."""
    cases = 1
    for node in decorators:
        if not isinstance(node, ast.Call) or not _name(node.func).endswith("parametrize"):
            continue
        values = next((x.value for x in node.keywords if x.arg == "argvalues"), None)
        values = node.args[1] if len(node.args) > 1 else values
        if not isinstance(values, ast.List | ast.Tuple | ast.Set):
            return None
        if any(isinstance(value, ast.Starred) for value in values.elts):
            return None
        cases *= sum(not _has_mark([value]) for value in values.elts)
    return cases


def _asserts(body: Sequence[ast.stmt], helpers: dict[str, Counter[str]]) -> Counter[str]:
    """The assertions that can be reached in `body` and can fail."""
    found: Counter[str] = Counter()
    for node in body:
        found += _of_statement(node, helpers)
        if isinstance(node, _ENDS):
            break
    return found


def _of_statement(node: ast.stmt, helpers: dict[str, Counter[str]]) -> Counter[str]:
    match node:
        case ast.Assert():
            return Counter() if _always_holds(node.test) else Counter([ast.unparse(node)])
        case ast.If():
            if _is_constant(node.test, truth=False):
                return _asserts(node.orelse, helpers)
            return _asserts(node.body, helpers) + _asserts(node.orelse, helpers)
        case ast.Try() | ast.TryStar():
            inner: Counter[str] = Counter()
            if not any(_swallows(handler) for handler in node.handlers):
                inner = _asserts(node.body, helpers)
            for part in (*(x.body for x in node.handlers), node.orelse, node.finalbody):
                inner = inner + _asserts(part, helpers)
            return inner
        case ast.With() | ast.AsyncWith():
            entered = Counter[str]()
            for item in node.items:
                entered += _of_expression(item.context_expr, helpers)
                if _name(getattr(item.context_expr, "func", None)).endswith("suppress"):
                    return entered
            return entered + _asserts(node.body, helpers)
        case ast.For() | ast.AsyncFor() | ast.While():
            if isinstance(node, ast.While) and _is_constant(node.test, truth=False):
                return Counter()
            return _asserts(node.body, helpers) + _asserts(node.orelse, helpers)
        case ast.Match():
            found: Counter[str] = Counter()
            for case in node.cases:
                found += _asserts(case.body, helpers)
            return found
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            return _asserts(node.body, helpers)
        case _:
            return _of_expression(node, helpers)


def _of_expression(node: ast.AST, helpers: dict[str, Counter[str]]) -> Counter[str]:
    found: Counter[str] = Counter()
    for call in (part for part in ast.walk(node) if isinstance(part, ast.Call)):
        name = _name(call.func)
        last = name.split(".")[-1]
        if last in helpers:
            found += helpers[last]
        elif (last.startswith("assert") or last in _FAILING) and not _is_empty(last, call):
            found[ast.unparse(call)] += 1
    return found


def _is_empty(name: str, call: ast.Call) -> bool:
    """Whether a call of a method that asserts always holds."""
    if name in _TRUE:
        return any(_always_holds(value) for value in call.args[:1])
    return name in _EQUAL and len({ast.dump(value) for value in call.args[:2]}) == 1


def _swallows(handler: ast.ExceptHandler) -> bool:
    """A failed assertion would end in it."""
    caught = handler.type
    names = {"BaseException"} if caught is None else {_name(part) for part in ast.walk(caught)}
    if not names & _BROAD:
        return False
    passed_on = (ast.Raise, ast.Assert)
    return not any(isinstance(part, passed_on) for each in handler.body for part in ast.walk(each))


def _always_holds(node: ast.expr) -> bool:
    """True of ``True``, ``1``, ``x == x``, ``not False``, ``(condition, "text")``."""
    match node:
        case ast.Tuple() | ast.List():
            return bool(node.elts)
        case ast.UnaryOp(op=ast.Not()):
            return _is_constant(node.operand, truth=False)
        case ast.BoolOp(op=ast.Or()):
            return any(_always_holds(value) for value in node.values)
        case ast.Compare(ops=[ast.Eq() | ast.Is() | ast.LtE() | ast.GtE()]):
            return ast.dump(node.left) == ast.dump(node.comparators[0])
        case _:
            return _is_constant(node, truth=True)


def _is_constant(node: ast.expr, *, truth: bool) -> bool:
    return isinstance(node, ast.Constant) and bool(node.value) is truth


def _exits(node: ast.AST) -> Iterator[str]:
    """Calls that end the process, but for scripts, and where the test expects it."""
    for part in ast.iter_child_nodes(node):
        if isinstance(part, ast.If) and "__main__" in ast.unparse(part.test):
            continue
        if isinstance(part, ast.With | ast.AsyncWith) and "SystemExit" in "".join(
            ast.unparse(item) for item in part.items
        ):
            continue
        if isinstance(part, ast.Call) and _name(part.func) in _EXITS:
            yield _name(part.func)
        yield from _exits(part)


def _name(node: ast.AST | None) -> str:
    """The dotted name that an expression is, else an empty text."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        above = _name(node.value)
        return f"{above}.{node.attr}" if above else node.attr
    return ""
