"""The assertions of a Python function: those that can be reached and can fail, and those that are
made in every run of it."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from agent.team.python_names import dotted_name

Helpers = Mapping[str, Counter[str]]
"""What functions of the file assert, by their names."""

_FAILING = frozenset(("raises", "warns", "fail", "deprecated_call"))
_TRUE = frozenset(("assertTrue", "assert_", "assertIsNotNone"))
_EQUAL = frozenset(("assertEqual", "assertEquals", "assertIs", "assertListEqual"))
_BROAD = frozenset(("Exception", "BaseException", "AssertionError"))
_ENDS = (ast.Return, ast.Raise, ast.Continue, ast.Break)


def asserts_of(body: Sequence[ast.stmt], helpers: Helpers) -> Counter[str]:
    """The assertions that can be reached in `body` and can fail."""
    found: Counter[str] = Counter()
    for node in body:
        found += _of_statement(node, helpers)
        if isinstance(node, _ENDS):
            break
    return found


def _of_statement(node: ast.stmt, helpers: Helpers) -> Counter[str]:
    match node:
        case ast.Assert():
            return Counter() if _always_holds(node.test) else Counter([ast.unparse(node)])
        case ast.If():
            if is_constant(node.test, truth=False):
                return asserts_of(node.orelse, helpers)
            return asserts_of(node.body, helpers) + asserts_of(node.orelse, helpers)
        case ast.Try() | ast.TryStar():
            inner: Counter[str] = Counter()
            if not any(_swallows(handler) for handler in node.handlers):
                inner = asserts_of(node.body, helpers)
            for part in (*(x.body for x in node.handlers), node.orelse, node.finalbody):
                inner = inner + asserts_of(part, helpers)
            return inner
        case ast.With() | ast.AsyncWith():
            entered = Counter[str]()
            for item in node.items:
                entered += _of_expression(item.context_expr, helpers)
                if dotted_name(getattr(item.context_expr, "func", None)).endswith("suppress"):
                    return entered
            return entered + asserts_of(node.body, helpers)
        case ast.For() | ast.AsyncFor() | ast.While():
            if isinstance(node, ast.While) and is_constant(node.test, truth=False):
                return Counter()
            return asserts_of(node.body, helpers) + asserts_of(node.orelse, helpers)
        case ast.Match():
            found: Counter[str] = Counter()
            for case in node.cases:
                found += asserts_of(case.body, helpers)
            return found
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            return asserts_of(node.body, helpers)
        case _:
            return _of_expression(node, helpers)


def _of_expression(node: ast.AST, helpers: Helpers) -> Counter[str]:
    return _of_calls((part for part in ast.walk(node) if isinstance(part, ast.Call)), helpers)


def _of_calls(calls: Iterable[ast.Call], helpers: Helpers) -> Counter[str]:
    found: Counter[str] = Counter()
    for call in calls:
        last = dotted_name(call.func).split(".")[-1]
        if last in helpers:
            found += helpers[last]
        elif (last.startswith("assert") or last in _FAILING) and not _is_empty(last, call):
            found[ast.unparse(call)] += 1
    return found


def certain_of(body: Sequence[ast.stmt], helpers: Helpers) -> Counter[str]:
    """The assertions that are made whatever the values are, as far as the statements tell."""
    found: Counter[str] = Counter()
    for node in body:
        found += _certain_of_statement(node, helpers)
        if isinstance(node, ast.Raise) or _leaves(node):
            break
    return found


def _certain_of_statement(node: ast.stmt, helpers: Helpers) -> Counter[str]:
    match node:
        case ast.Assert():
            return _of_statement(node, helpers)
        case ast.If() | ast.While() | ast.Match() | ast.ClassDef():
            return Counter()
        case ast.FunctionDef() | ast.AsyncFunctionDef():
            return Counter()  # counts where it is called
        case ast.Try() | ast.TryStar():
            last = certain_of(node.finalbody, helpers)
            return last if node.handlers else certain_of(node.body, helpers) + last
        case ast.With() | ast.AsyncWith():
            entered = Counter[str]()
            for item in node.items:
                entered += _of_calls(_certain_calls(item.context_expr), helpers)
            if any(_takes_failures(item.context_expr) for item in node.items):
                return entered
            return entered + certain_of(node.body, helpers)
        case ast.For() | ast.AsyncFor():
            none = isinstance(node.iter, ast.List | ast.Tuple | ast.Set) and not node.iter.elts
            return Counter() if none else certain_of(node.body, helpers)
        case _:
            return _of_calls(_certain_calls(node), helpers)


def _takes_failures(node: ast.expr) -> bool:
    """Whether what fails below a context manager may end there."""
    last = dotted_name(getattr(node, "func", None)).split(".")[-1]
    return last in ("suppress", "raises") or last.startswith("assertRaises")


def _certain_calls(node: ast.AST) -> Iterator[ast.Call]:
    """The calls that are made whenever an expression is evaluated."""
    parts: Iterable[ast.AST] = ast.iter_child_nodes(node)
    match node:
        case ast.Call():
            yield node
        case ast.BoolOp():
            parts = node.values[:1]
        case ast.IfExp():
            parts = [node.test]
        case ast.Lambda() | ast.ListComp() | ast.SetComp() | ast.DictComp() | ast.GeneratorExp():
            parts = []
        case _:
            pass
    for part in parts:
        yield from _certain_calls(part)


def _leaves(node: ast.AST, *, in_loop: bool = False) -> bool:
    """Whether what stands after a statement may not be reached, though nothing failed."""
    match node:
        case ast.Return():
            return True
        case ast.Break() | ast.Continue():
            return not in_loop
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef() | ast.expr():
            return False
        case _:
            inside = in_loop or isinstance(node, ast.For | ast.AsyncFor | ast.While)
            return any(_leaves(part, in_loop=inside) for part in ast.iter_child_nodes(node))


def _is_empty(name: str, call: ast.Call) -> bool:
    """Whether a call of a method that asserts always holds."""
    if name in _TRUE:
        return any(_always_holds(value) for value in call.args[:1])
    return name in _EQUAL and len({ast.dump(value) for value in call.args[:2]}) == 1


def _swallows(handler: ast.ExceptHandler) -> bool:
    """A failed assertion would end in it."""
    caught = handler.type
    names = (
        {"BaseException"} if caught is None else {dotted_name(part) for part in ast.walk(caught)}
    )
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
            return is_constant(node.operand, truth=False)
        case ast.BoolOp(op=ast.Or()):
            return any(_always_holds(value) for value in node.values)
        case ast.Compare(ops=[ast.Eq() | ast.Is() | ast.LtE() | ast.GtE()]):
            return ast.dump(node.left) == ast.dump(node.comparators[0])
        case _:
            return is_constant(node, truth=True)


def is_constant(node: ast.expr, *, truth: bool) -> bool:
    """Whether an expression is a constant that counts as `truth`."""
    return isinstance(node, ast.Constant) and bool(node.value) is truth
