"""laconic shortens what a transformer reads, remembers, thinks and weighs, and keeps the answer."""

from laconic.cache import *  # noqa: F403  the methods, under the names of their papers
from laconic.cache import __all__ as _methods
from laconic.errors import (
    BudgetError,
    ConflictError,
    LaconicError,
    ProtectError,
    SessionError,
    UnknownNameError,
    UnsupportedModelError,
)
from laconic.load import load
from laconic.method import Method, create, methods, register
from laconic.session import Session, compress

__version__ = "0.1.0"

__all__ = [
    *_methods,
    "BudgetError",
    "ConflictError",
    "LaconicError",
    "Method",
    "ProtectError",
    "Session",
    "SessionError",
    "UnknownNameError",
    "UnsupportedModelError",
    "compress",
    "create",
    "load",
    "methods",
    "register",
]
