"""The catalogue of laconic's own methods, read from their source: no torch is imported for a list of names."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from laconic.errors import UnknownNameError, closest

FOLDER = Path(__file__).parent / "methods"


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


@cache
def lines() -> dict[str, Line]:
    """All methods of the shelf by name."""
    found = [line for file in sorted(FOLDER.rglob("*.py")) for line in _of(file)]
    return {line.name: line for line in found}


def _of(file: Path) -> list[Line]:
    text = file.read_text(encoding="utf-8")
    if "@register(" not in text:
        return []
    classes = (node for node in ast.parse(text).body if isinstance(node, ast.ClassDef))
    return [_line(node, call) for node in classes for call in node.decorator_list if _registers(call)]


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
        raise UnknownNameError(f"unknown method {name!r}: {closest(name, known)}")
