"""Python tests, as far as their source tells: which there are, what they assert, what skips them.

A test that is skipped, or expected to fail, is none. An assertion counts when it can be reached and
can fail: not behind a `return`, not under `if False`, not swallowed by a broad `except`.
"""

from __future__ import annotations

import ast
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace

from agent.team.python_asserts import Helpers, asserts_of, certain_of, is_constant
from agent.team.python_names import Function, bound_by, dotted_name, given_another_meaning

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


@dataclass(frozen=True, kw_only=True)
class Test:
    """One test function, or all cases of a parametrised one."""

    cases: int | None
    """None when they cannot be counted here."""
    asserts: Counter[str]
    """The assertions in one case, as text, with what helpers of the file assert for it."""

    certain: Counter[str]
    """Those of them that are made under no condition."""

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
    classes: set[str] = field(default_factory=set)
    """Qualified names of those that hold tests."""
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
    parsed, changed = _parse(before), _parse(after)
    if parsed is None or changed is None:
        return []
    try:
        old, new = _read(parsed), _read(changed)
        renamed = given_another_meaning(parsed, changed)
    except RecursionError:
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
    if not reasons:
        reasons += _made_conditional(old, new)
    reasons += [f"calls {name}()" for name in (new.exits - old.exits)]
    return reasons + renamed


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


def _made_conditional(old: Tests, new: Tests) -> Iterator[str]:
    """Assertions that were made in every run of a test, and now only under a condition."""
    asserted = {text for test in new.live.values() for text in test.asserts}
    certain = {text for test in new.live.values() for text in test.certain}
    for name, test in old.live.items():
        now = new.live.get(name)
        fewer = now is not None and now.certain.total() < test.certain.total()
        lost = [text for text in test.certain if text not in certain]
        if gone := [text for text in lost if fewer or text in asserted]:
            yield f"{name} does not always reach: {gone[0][:160]}"
    before, after = (
        sum((test.cases or 0) * test.certain.total() for test in tests.live.values())
        for tests in (old, new)
    )
    if after < before and old.live.keys() - new.live.keys():
        yield f"{after} assertions that are always made, not {before} as before"


def _parse(text: str) -> ast.Module | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an escape that is none is not our business
            return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _read(tree: ast.Module) -> Tests:
    functions = [
        node
        for node in ast.walk(tree)
        if isinstance(node, Function) and not node.name.startswith("test")
    ]
    rebound = {
        name
        for node in tree.body
        if not isinstance(node, Function | ast.ClassDef)
        for name in bound_by(node)
    }
    helpers = _weakest(functions, asserts_of, rebound), _weakest(functions, certain_of, rebound)
    tests = Tests()
    _collect(tree.body, "", tests, helpers, idle=False, always=True)
    for node in ast.walk(tree):
        if isinstance(node, ast.Global):
            _hide(tests, node.names)
    tests.exits = Counter(_exits(tree))
    return tests


def _weakest(
    functions: Sequence[Function],
    count: Callable[[Sequence[ast.stmt], Helpers], Counter[str]],
    rebound: Collection[str],
) -> Helpers:
    """What functions that are no tests assert; of those with one name, what all of them do, and
    nothing when the name may mean something else."""
    found: dict[str, Counter[str]] = {}
    for node in functions:
        asserts = Counter[str]() if node.name in rebound else count(node.body, {})
        found[node.name] = found[node.name] & asserts if node.name in found else asserts
    return found


def _collect(
    body: Sequence[ast.stmt],
    inside: str,
    tests: Tests,
    helpers: tuple[Helpers, Helpers],
    *,
    idle: bool,
    always: bool,
) -> None:
    """Add the tests of a module or class to `tests`. `always` is false below a condition."""
    for node in body:
        if not isinstance(node, ast.If):
            _hide(tests, [f"{inside}{name}" for name in bound_by(node)])
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() if node.name.startswith("test"):
                name = f"{inside}{node.name}"
                if idle or _is_idle(node):
                    tests.idle.add(name)
                else:
                    tests.live[name] = Test(
                        cases=_cases(node.decorator_list),
                        asserts=asserts_of(node.body, helpers[0]),
                        certain=certain_of(node.body, helpers[1]) if always else Counter(),
                    )
            case ast.ClassDef() if _is_collected(node):
                below = idle or _has_mark(node.decorator_list)
                tests.classes.add(f"{inside}{node.name}")
                _collect(
                    node.body, f"{inside}{node.name}.", tests, helpers, idle=below, always=always
                )
            case ast.Assign() | ast.AnnAssign() | ast.Expr() if _marks_all(node):
                tests.all_skipped = True
            case ast.If() if not is_constant(node.test, truth=False):
                both = [*node.body, *node.orelse]
                _collect(both, inside, tests, helpers, idle=idle, always=False)
            case _:
                pass


def _hide(tests: Tests, bound: Sequence[str]) -> None:
    """Forget the tests whose name, or that of their class, means something else from here on, or
    that are told about as `test_a.__test__ = False` does."""
    for name in bound:
        parts = name.removesuffix(".__test__").split(".")
        gone = [".".join(parts[: number + 1]) for number in range(len(parts))]
        if gone[-1] in tests.classes:
            gone += [test for test in tests.live if test.startswith(f"{gone[-1]}.")]
        for test in gone:
            tests.live.pop(test, None)
            tests.idle.discard(test)


def _is_collected(node: ast.ClassDef) -> bool:
    """Whether test runners look for tests in a class."""
    off = any(
        isinstance(each, ast.Assign)
        and any(isinstance(x, ast.Name) and x.id == "__test__" for x in each.targets)
        and is_constant(each.value, truth=False)
        for each in node.body
    )
    made = any(isinstance(x, Function) and x.name in ("__init__", "__new__") for x in node.body)
    return not off and (bool(node.bases) or (node.name.startswith("Test") and not made))


def _marks_all(node: ast.Assign | ast.AnnAssign | ast.Expr) -> bool:
    """A statement of a module or class that skips everything in it."""
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Call) and _skips(node.value.func)
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    named = {x.id for x in targets if isinstance(x, ast.Name)}
    if "__test__" in named and node.value is not None:
        return is_constant(node.value, truth=False)
    return "pytestmark" in named and node.value is not None and _has_mark([node.value])


def _has_mark(nodes: Sequence[ast.expr]) -> bool:
    return any(_skips(part) for node in nodes for part in ast.walk(node))


def _is_idle(node: Function) -> bool:
    """Marked, or skipped by its own body."""
    if _has_mark(node.decorator_list) or any(_yields(part) for part in node.body):
        return True
    for part in (part for each in node.body for part in ast.walk(each)):
        if isinstance(part, ast.Call) and _skips(part.func):
            return True
        if isinstance(part, ast.Raise) and _skips(part.exc):
            return True
    return False


def _yields(node: ast.AST) -> bool:
    """Whether it makes its function a generator, which pytest does not run as a test."""
    if isinstance(node, ast.Yield | ast.YieldFrom):
        return True
    if isinstance(node, Function | ast.ClassDef | ast.Lambda):
        return False
    return any(_yields(part) for part in ast.iter_child_nodes(node))


def _skips(node: ast.AST | None) -> bool:
    """Whether an expression names what keeps tests from running, or from failing."""
    owner, _, last = dotted_name(node).rpartition(".")
    return last in _IDLE and owner.rpartition(".")[2] in _IDLE_OWNERS


def _cases(decorators: Sequence[ast.expr]) -> int | None:
    """How many cases the decorators make; None when that is not written there."""
    cases = 1
    for node in decorators:
        if not isinstance(node, ast.Call) or not dotted_name(node.func).endswith("parametrize"):
            continue
        values = next((x.value for x in node.keywords if x.arg == "argvalues"), None)
        values = node.args[1] if len(node.args) > 1 else values
        if not isinstance(values, ast.List | ast.Tuple | ast.Set):
            return None
        if any(isinstance(value, ast.Starred) for value in values.elts):
            return None
        cases *= sum(not _has_mark([value]) for value in values.elts)
    return cases


def _exits(node: ast.AST) -> Iterator[str]:
    """Calls that end the process, but for scripts, and where the test expects it."""
    for part in ast.iter_child_nodes(node):
        if isinstance(part, ast.If) and "__main__" in ast.unparse(part.test):
            continue
        if isinstance(part, ast.With | ast.AsyncWith) and "SystemExit" in "".join(
            ast.unparse(item) for item in part.items
        ):
            continue
        if isinstance(part, ast.Call) and dotted_name(part.func) in _EXITS:
            yield dotted_name(part.func)
        yield from _exits(part)
