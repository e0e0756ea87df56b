"""Names in Python source: what a test file imports, and where it gives a name another meaning.

A test that asserts as before proves nothing when what it calls is no longer what it imported.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Collection, Iterator

Function = ast.FunctionDef | ast.AsyncFunctionDef
_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
_FREE = frozenset(("sys.argv", "sys.stdin", "sys.stdout", "sys.stderr", "sys.path"))
_BY_TEXT = frozenset(("exec", "globals"))
"""Calls that may give any name any meaning."""
_POWERFUL = _BY_TEXT | {"pytest_plugins"}


def dotted_name(node: ast.AST | None) -> str:
    """The dotted name that an expression is, else an empty text."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        above = dotted_name(node.value)
        return f"{above}.{node.attr}" if above else node.attr
    return ""


def bound_by(node: ast.AST) -> Iterator[str]:
    """Dotted names that a statement binds or deletes where it stands, not in functions of it."""
    if isinstance(node, Function | ast.ClassDef):
        yield node.name
    elif isinstance(node, ast.alias):
        yield node.asname or node.name.split(".")[0]
    elif isinstance(node, ast.Name | ast.Attribute) and not isinstance(node.ctx, ast.Load):
        yield dotted_name(node)
    elif isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and node.name:
        yield node.name
    if not isinstance(node, _SCOPES):
        for part in ast.iter_child_nodes(node):
            yield from bound_by(part)


def given_another_meaning(old: ast.Module, new: ast.Module) -> list[str]:
    """How `new` replaces what `old` imports, as parts of sentences; empty when it does not."""
    before, after = _origins(old), _origins(new)
    reasons = [
        f"imports {name} from somewhere else too"
        for name, origins in after.items()
        if name in before and len(origins) > len(before[name])
    ]
    roots = before.keys() | after.keys()
    for name in _bound(new, roots) - _bound(old, roots):
        if name in before:
            reasons.append(f"gives {name}, which it imports, another meaning")
        elif "." in name or name in _POWERFUL:
            reasons.append(f"replaces names with {name}")
    taken = (_parameters(new) - _parameters(old)) & before.keys()
    reasons += [f"has a parameter {name}, which hides what it imports" for name in sorted(taken)]
    return reasons


def _origins(tree: ast.Module) -> dict[str, set[str]]:
    """What each imported name is, by all the imports of the file."""
    found: dict[str, set[str]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            module = (
                "." * node.level + (node.module or "") if isinstance(node, ast.ImportFrom) else ""
            )
            for alias in node.names:
                root = alias.name if alias.asname or module else alias.name.split(".")[0]
                found.setdefault(alias.asname or root, set()).add(f"{module}:{root}")
                if alias.name == "*":
                    found["*"].add(module)
    found.setdefault("*", set())
    return found


def _bound(tree: ast.AST, roots: Collection[str]) -> Counter[str]:
    """How often names are bound in all scopes but those of classes, parts of what is below `roots`
    are replaced, and names are bound by text."""
    found: Counter[str] = Counter()
    for scope in ast.walk(tree):
        if isinstance(scope, ast.Module | Function):
            body = [
                part for part in scope.body if not isinstance(part, ast.Import | ast.ImportFrom)
            ]
            found.update(name for part in body for name in bound_by(part) if "." not in name)
        elif isinstance(scope, ast.Attribute | ast.Subscript):
            found.update(_replaced(scope, roots))
        elif isinstance(scope, ast.Call):
            found.update(_called(scope, roots))
    return found


def _replaced(node: ast.Attribute | ast.Subscript, roots: Collection[str]) -> Iterator[str]:
    """The part of an imported module that a target is."""
    if isinstance(node.ctx, ast.Load):
        return
    name = dotted_name(node if isinstance(node, ast.Attribute) else node.value)
    owned = isinstance(node, ast.Attribute) or name in ("sys.modules", "modules")
    owned = owned or name.endswith("__dict__")
    if owned and name not in _FREE and name.split(".")[0] in roots:
        yield name if "." in name else f"sys.{name}"


def _called(node: ast.Call, roots: Collection[str]) -> Iterator[str]:
    name = dotted_name(node.func)
    if name in _BY_TEXT:
        yield name
    elif name in ("setattr", "delattr") and node.args:
        owner = dotted_name(node.args[0])
        if owner.split(".")[0] in roots:
            yield f"{owner}.*"


def _parameters(tree: ast.AST) -> set[str]:
    return {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
