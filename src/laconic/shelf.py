"""The catalogue of laconic's own methods, read from their source: no torch is imported for names and parameters."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from laconic.errors import UnknownNameError, closest

FOLDER = Path(__file__).parent / "methods"
LISTED_BY = "laconic methods"
"""The command that lists all of them: they are too many for an error message."""


@dataclass(frozen=True)
class Line:
    """One method, as its decorator `register` and its docstring describe it; see `laconic.method.Entry`."""

    name: str
    site: str
    mechanism: str
    source: str
    query_aware: bool
    summary: str
    modality: str = "text"
    training: str = "none"
    inferred: str = ""
    fit: str = ""
    principle: str = ""


@dataclass(frozen=True)
class Sheet:
    """What a method's class says beyond its `Line`.

    Attributes:
        cls: the name of the class. `doc`: its docstring.
        parameters: name -> default, as Python writes it; the budget's are left out.
        default_keep, fixed_budget, reuse, uneven, packs: see `laconic.method.Method`.
    """

    cls: str
    doc: str
    parameters: dict[str, str]
    default_keep: float | None
    fixed_budget: bool
    reuse: str
    uneven: bool
    packs: bool


@cache
def lines() -> dict[str, Line]:
    """All methods of the shelf by name."""
    return {name: _line(node, call) for name, (_, node, call) in _registered().items()}


def sheet(name: str) -> Sheet:
    """The method called `name` in detail: what its class and the classes that it derives from define."""
    file, node, _ = _registered()[name]
    fields: dict[str, str] = {}
    constants: dict[str, Any] = {"default_keep": 0.25, "fixed_budget": False}
    constants |= {"reuse": "refused", "uneven": False, "packs": False}
    for home, cls in reversed(list(_derivation(file, node))):
        for target, annotation, value in _assignments(cls.body):
            if target in constants and value is not None:
                constants[target] = _value(home, value)
            elif annotation and "ClassVar" not in annotation:
                fields[target] = "None" if value is None else _written(home, value)
    return Sheet(node.name, ast.get_docstring(node) or "", fields, **constants)


@cache
def _registered() -> dict[str, tuple[Path, ast.ClassDef, Any]]:
    """Method -> its file, its class, and the call of `register` above that."""
    found = {}
    for file in sorted(FOLDER.rglob("*.py")):
        if "@register(" in file.read_text(encoding="utf-8"):
            for node in _classes(file).values():
                for call in filter(_registers, node.decorator_list):
                    found[ast.literal_eval(call.args[0])] = file, node, call  # type: ignore[attr-defined]
    return found


@cache
def _parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def _classes(file: Path) -> dict[str, ast.ClassDef]:
    return {node.name: node for node in _parsed(file).body if isinstance(node, ast.ClassDef)}


def _derivation(file: Path, node: ast.ClassDef) -> Iterator[tuple[Path, ast.ClassDef]]:
    """The class and those that it derives from, each with its file, up to `Method`, whose fields are the budget."""
    yield file, node
    origins = {
        alias.asname or alias.name: line.module or ""
        for line in _parsed(file).body
        if isinstance(line, ast.ImportFrom)
        for alias in line.names
    }
    for base in node.bases:
        name = base.id if isinstance(base, ast.Name) else ""
        module = origins.get(name, "")
        if name in _classes(file):
            yield from _derivation(file, _classes(file)[name])
        elif module.startswith("laconic.") and module != "laconic.method":
            home = FOLDER.parent.joinpath(*module.split(".")[1:]).with_suffix(".py")
            yield from _derivation(home, _classes(home)[name])


def _assignments(body: Iterable[ast.stmt]) -> Iterator[tuple[str, str, ast.expr | None]]:
    """Name, annotation and value of what a module or a class assigns."""
    for line in body:
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
            yield line.target.id, ast.unparse(line.annotation), line.value
        elif isinstance(line, ast.Assign):
            target, value = line.targets[0], line.value
            several = isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple)
            for name, one in zip(target.elts, value.elts, strict=True) if several else [(target, value)]:  # type: ignore[attr-defined]
                if isinstance(name, ast.Name):
                    yield name.id, "", one


def _value(file: Path, value: ast.expr) -> Any:
    """What an expression of literals, and of the file's own constants, comes to."""
    constants = {name: node for name, _, node in _assignments(_parsed(file).body) if node is not None}
    if isinstance(value, ast.Name) and value.id in constants:
        return _value(file, constants[value.id])
    if isinstance(value, ast.BinOp) and isinstance(value.op, ast.Div):
        return _value(file, value.left) / _value(file, value.right)
    return ast.literal_eval(value)


def _written(file: Path, value: ast.expr) -> str:
    """The same as Python writes it; the expression where that is more than a constant."""
    try:
        return repr(_value(file, value))
    except ValueError:
        return ast.unparse(value)


def _registers(node: ast.expr) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "register"


def _line(node: ast.ClassDef, call: Any) -> Line:
    given = {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}
    summary = (ast.get_docstring(node) or "").splitlines()[0]
    return Line(ast.literal_eval(call.args[0]), summary=summary, **given)


def check_name(name: str, others: tuple[str, ...] = ()) -> None:
    """Refuse a name that no method of the shelf has.

    Args:
        others: names that are known from elsewhere.

    Raises:
        UnknownNameError: with the closest names.
    """
    known = {*lines(), *others}
    if name not in known:
        raise UnknownNameError(f"unknown method {name!r}: {closest(name, known, LISTED_BY)}")
