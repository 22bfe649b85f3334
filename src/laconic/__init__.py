"""laconic shortens what a transformer reads, remembers, thinks and weighs, and keeps the answer.

Importing it costs nothing: a name is looked up in its module when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from laconic.artifact import Artifact as Artifact
    from laconic.baking import Baked as Baked
    from laconic.baking import bake as bake
    from laconic.cache.contract import CacheMethod as CacheMethod
    from laconic.cache.saved import SavedContext as SavedContext
    from laconic.cache.saved import load as load_cache  # noqa: F401
    from laconic.cache.storage import StorageMethod as StorageMethod
    from laconic.codec.codes import Codes as Codes
    from laconic.codec.contract import CodecMethod as CodecMethod
    from laconic.engine.context import Context as Context
    from laconic.engine.context import read as read
    from laconic.errors import ArtifactError as ArtifactError
    from laconic.errors import BudgetError as BudgetError
    from laconic.errors import CodesError as CodesError
    from laconic.errors import ConflictError as ConflictError
    from laconic.errors import EntryPointError as EntryPointError
    from laconic.errors import LaconicError as LaconicError
    from laconic.errors import MediaError as MediaError
    from laconic.errors import ProtectError as ProtectError
    from laconic.errors import SavedContextError as SavedContextError
    from laconic.errors import SessionError as SessionError
    from laconic.errors import StoreError as StoreError
    from laconic.errors import UnknownNameError as UnknownNameError
    from laconic.errors import UnsupportedModelError as UnsupportedModelError
    from laconic.loading import load as load
    from laconic.memory.bank import Bank as Bank
    from laconic.memory.contract import MemoryMethod as MemoryMethod
    from laconic.memory.memory import Memory as Memory
    from laconic.memory.store import SegmentStore as SegmentStore
    from laconic.method import Method as Method
    from laconic.method import create_method as create_method
    from laconic.method import list_methods as list_methods
    from laconic.method import register as register
    from laconic.methods import *  # noqa: F403  every published system, under the name of its paper
    from laconic.session import Session as Session
    from laconic.session import compress as compress
    from laconic.shortening.contract import PromptMethod as PromptMethod
    from laconic.shortening.scorer import Scorer as Scorer
    from laconic.shortening.shorten import Shortened as Shortened
    from laconic.shortening.shorten import shorten as shorten
    from laconic.speech.contract import AudioMethod as AudioMethod
    from laconic.speech.session import EncoderSession as EncoderSession
    from laconic.speech.session import compress_encoder as compress_encoder
    from laconic.stream.contract import TokenMethod as TokenMethod
    from laconic.version import __version__ as __version__
    from laconic.weights.contract import WeightMethod as WeightMethod
    from laconic.weights.edit import WeightEdit as WeightEdit

_HOMES = {
    "Artifact": "laconic.artifact",
    "Bank": "laconic.memory.bank",
    "Baked": "laconic.baking",
    "AudioMethod": "laconic.speech.contract",
    "CacheMethod": "laconic.cache.contract",
    "CodecMethod": "laconic.codec.contract",
    "Codes": "laconic.codec.codes",
    "Context": "laconic.engine.context",
    "EncoderSession": "laconic.speech.session",
    "Memory": "laconic.memory.memory",
    "MemoryMethod": "laconic.memory.contract",
    "Method": "laconic.method",
    "PromptMethod": "laconic.shortening.contract",
    "SavedContext": "laconic.cache.saved",
    "Scorer": "laconic.shortening.scorer",
    "SegmentStore": "laconic.memory.store",
    "Session": "laconic.session",
    "Shortened": "laconic.shortening.shorten",
    "StorageMethod": "laconic.cache.storage",
    "TokenMethod": "laconic.stream.contract",
    "WeightEdit": "laconic.weights.edit",
    "WeightMethod": "laconic.weights.contract",
    "bake": "laconic.baking",
    "compress": "laconic.session",
    "compress_encoder": "laconic.speech.session",
    "create_method": "laconic.method",
    "list_methods": "laconic.method",
    "load": "laconic.loading",
    "load_cache": "laconic.cache.saved:load",
    "read": "laconic.engine.context",
    "shorten": "laconic.shortening.shorten",
    "__version__": "laconic.version",
    "register": "laconic.method",
}
_ERRORS = (
    "ArtifactError",
    "BudgetError",
    "CodesError",
    "ConflictError",
    "EntryPointError",
    "LaconicError",
    "MediaError",
    "ProtectError",
    "SavedContextError",
    "SessionError",
    "StoreError",
    "UnknownNameError",
    "UnsupportedModelError",
)
_HOMES |= dict.fromkeys(_ERRORS, "laconic.errors")

__all__ = [*_HOMES]  # and every class of `laconic.methods`


def __getattr__(name: str) -> Any:
    """The public object called `name`, imported now. Classes of methods come from `laconic.methods`."""
    if name == "create":
        from laconic.deprecated import warn

        warn("laconic.create", "laconic.create_method")
        name = "create_method"
    if name == "RecipeError":
        return getattr(import_module("laconic.errors"), name)
    if name in _HOMES:
        module, _, attribute = _HOMES[name].partition(":")
        found = getattr(import_module(module), attribute or name)
    elif name[:1].isupper() and hasattr(import_module("laconic.methods"), name):
        found = getattr(import_module("laconic.methods"), name)
    else:
        raise AttributeError(f"module 'laconic' has no attribute {name!r}")
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    methods = [name for name in vars(import_module("laconic.methods")) if name[:1].isupper()]
    return sorted({*__all__, *methods, *globals()})
