"""laconic shortens what a transformer reads, remembers, thinks and weighs, and keeps the answer."""

from laconic.cache import *  # noqa: F403  the methods, under the names of their papers
from laconic.cache import __all__ as _methods
from laconic.cache.saved import SavedContext
from laconic.cache.saved import load as load_cache
from laconic.encoder import *  # noqa: F403
from laconic.encoder import __all__ as _encoder_methods
from laconic.errors import (
    BudgetError,
    ConflictError,
    LaconicError,
    MediaError,
    ProtectError,
    RecipeError,
    SavedContextError,
    SessionError,
    UnknownNameError,
    UnsupportedModelError,
)
from laconic.lens import EmbedLens
from laconic.load import load
from laconic.method import Method, create, methods, register
from laconic.session import Session, compress
from laconic.tokens import *  # noqa: F403
from laconic.tokens import __all__ as _token_methods
from laconic.version import __version__

__all__ = [
    *_encoder_methods,
    *_methods,
    *_token_methods,
    "BudgetError",
    "ConflictError",
    "EmbedLens",
    "LaconicError",
    "MediaError",
    "Method",
    "ProtectError",
    "RecipeError",
    "SavedContext",
    "SavedContextError",
    "Session",
    "SessionError",
    "UnknownNameError",
    "UnsupportedModelError",
    "__version__",
    "compress",
    "create",
    "load",
    "load_cache",
    "methods",
    "register",
]
