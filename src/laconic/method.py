"""The base of every method, and the catalogue: one decorator carries a method's whole entry."""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

from laconic import shelf
from laconic.budget import BUDGETS, Budget, share
from laconic.errors import BudgetError, UnknownNameError, closest
from laconic.plugins import Plugins, any_plugins, load_plugins
from laconic.shelf import Line

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from laconic.seams import Seam

GROUP = "laconic.methods"
"""Entry-point group of methods in other packages."""
SITES = ("prompt", "encoder", "tokens", "cache", "memory", "reasoning", "weights", "codecs", "lens", "layers")
PRINCIPLES = ("transformation", "similarity", "attention", "query")
"""What decides about tokens of images, videos and sound, in the terms of the survey arXiv 2507.20198."""
Span = tuple[int, int]
Protect = str | Span | Sequence[str | Span]
Reuse = Literal["exact", "continue", "refused"]


@dataclass(frozen=True)
class Entry:
    """One line of the catalogue. `summary` is the first line of the class docstring; all others: see `register`."""

    name: str
    cls: type[Method] = field(repr=False)
    site: str
    modality: str
    mechanism: str
    training: str
    source: str
    query_aware: bool
    inferred: str
    fit: str = ""
    principle: str = ""

    @property
    def summary(self) -> str:
        return (self.cls.__doc__ or "").strip().splitlines()[0]

    def parameters(self) -> dict[str, Any]:
        """Parameter names and defaults, budget aside."""
        shared = {f.name for f in dataclasses.fields(Method)}
        return {f.name: _default(f) for f in dataclasses.fields(self.cls) if f.name not in shared}

    def as_dict(self) -> dict[str, Any]:
        """Stable keys for ``laconic methods --json``."""
        keys = ("name", "site", "modality", "mechanism", "principle", "training", "source", "query_aware", "inferred")
        return {k: getattr(self, k) for k in (*keys, "summary")} | {
            "class": self.cls.__name__,
            "parameters": self.parameters(),
        }


def _default(f: dataclasses.Field[Any]) -> Any:
    if f.default is not dataclasses.MISSING:
        return f.default
    return f.default_factory() if f.default_factory is not dataclasses.MISSING else None


CATALOGUE: dict[str, Entry] = {}
_ADDED_SITES: list[str] = []
M = TypeVar("M", bound="type[Method]")
L = TypeVar("L")


@dataclass(kw_only=True)
class Method:
    """A compression method with its parameters: a dataclass, and so its own configuration.

    Args:
        keep: share of the tokens kept, ``0 < keep <= 1``; 1.0 is neutral.
        tokens: entries kept per layer and head instead (mean).
        bytes: bytes of keys and values per sequence instead.
        protect: what must stay: a token range ``(start, stop)``, a substring of the prompt, ``"system"`` for the chat
            template's system turn, or a list of these. It counts against the budget.

    Raises:
        BudgetError: a budget out of range, or more than one.
    """

    keep: float | None = None
    tokens: int | None = None
    bytes: int | None = None
    protect: Protect = ()

    name: ClassVar[str] = ""
    claims: ClassVar[frozenset[str]] = frozenset()
    """What this method needs for itself; two methods with a common claim do not go together."""
    seams: ClassVar[tuple[type[Seam], ...]] = ()
    """What a session opens for this method (`laconic.seams.Seam`); the contract of each site names its own."""
    default_keep: ClassVar[float | None] = 0.25
    """The share when no budget is given; None where the method's own parameters say how much stays then."""

    in_visual_tokens: ClassVar[bool] = False
    """Whether the budget is a mean share of the visual tokens over the decoder's layers, not of the cache's entries."""
    takes_budget: ClassVar[bool] = True
    """Whether keep=, tokens= and bytes= are for it; a method with parameters of its own only leaves them to the others."""
    packs: ClassVar[bool] = False
    """Whether it only stores in a smaller form what stays: beside a method that chooses, a common budget is not for it."""
    before_reading: ClassVar[bool] = False
    """Whether its work is over when the model begins to read, so that a saved cache has nothing of it."""
    uneven: ClassVar[bool] = False
    """Whether sequences of one batch keep different numbers of tokens under a budget; all cost what the longest costs."""
    reuse: ClassVar[Reuse] = "refused"
    """What becomes of a stored context that goes on: "exact", what one pass over all of it keeps; "continue", another part,
    because the first part was cut before the second was seen; "refused": its contexts are not stored, or do not go on."""
    fixed_budget: ClassVar[bool] = False
    """Whether what was fitted decides the budget: in a grid of budgets the method stands once, with its own."""

    def __post_init__(self) -> None:
        if self.keep is None and self.tokens is None and self.bytes is None:
            self.keep = self.default_keep
        self.budget_from_parameters = self.keep is None and self.tokens is None and self.bytes is None
        """True when no budget was given and the method's own parameters decide."""
        self.budget = Budget(keep=1.0) if self.budget_from_parameters else Budget(self.keep, self.tokens, self.bytes)

    @property
    def neutral(self) -> bool:
        """True when this setting changes nothing."""
        return self.budget.neutral and not self.budget_from_parameters

    @property
    def in_bytes(self) -> bool:
        """True when the budget is a share of the bytes, because entries are stored in a smaller form, not left out."""
        return False

    def attach(self, model: PreTrainedModel) -> None:
        """Called by `compress()` before any work: load what belongs to this model (an artifact), or refuse a model
        that the method does not fit."""

    def parameters(self) -> dict[str, Any]:
        """The method's own parameters as set, for result rows."""
        return {name: getattr(self, name) for name in CATALOGUE[self.name].parameters()}

    def __str__(self) -> str:
        budget = [] if self.budget_from_parameters else [str(self.budget)]
        return f"{self.name}({', '.join(budget + [f'{k}={_on_one_line(v)}' for k, v in self.parameters().items()])})"


def _on_one_line(value: Any) -> Any:
    return repr(value) if isinstance(value, str) and not value.isprintable() else value


def sites() -> tuple[str, ...]:
    """Where methods act: laconic's own `SITES`, then those that other packages added."""
    return (*SITES, *_ADDED_SITES)


def add_site(name: str) -> None:
    """Add a site of another package, so that `register` accepts it. Its contract brings a seam of its own, see
    `laconic.seams.Seam`. Adding a site twice is harmless.

    Raises:
        ValueError: the name is not lower-case letters, digits and underscores.
    """
    if not name.isidentifier() or name != name.lower():
        raise ValueError(f"site {name!r} must be lower-case letters, digits and underscores.")
    if name not in sites():
        _ADDED_SITES.append(name)


def register(
    name: str,
    *,
    site: str,
    mechanism: str,
    source: str,
    query_aware: bool,
    modality: str = "text",
    training: str = "none",
    inferred: str = "",
    fit: str = "",
    principle: str = "",
) -> Callable[[M], M]:
    """Class decorator that enters a `Method` into the catalogue.

    Args:
        name: lower-case with underscores, unique.
        site: where it acts, one of `sites()`.
        mechanism: one word or two: eviction, merging, pruning, quantisation ...
        modality: "text", "image", "video", "audio", "3D", or several with commas. Methods for text treat tokens of any
            kind alike.
        principle: what decides about visual tokens, of `PRINCIPLES`, or several with commas; empty where it is none of them.
        source: arXiv id or project.
        query_aware: its choice depends on the queries at the end of the prompt, so it may fail on a later question.
        inferred: what was not published and had to be chosen.
        fit: ``"package.module:Class"`` of its `laconic.fit.contract.Fit`, imported when it is asked for; not needed where
            the Fit is in the module `fit` of the method's own package.
    """
    if site not in sites():
        raise ValueError(
            f"site={site!r} of method {name!r}: choose one of {', '.join(sites())}, or add yours with "
            "laconic.method.add_site()."
        )
    if not name.isidentifier() or name != name.lower():
        raise ValueError(f"method name {name!r} must be lower-case letters, digits and underscores.")
    if unknown := terms(principle) - {*PRINCIPLES}:
        raise ValueError(f"principle={principle!r} of method {name!r}: {min(unknown)!r} is none of {', '.join(PRINCIPLES)}.")

    def enter(cls: M) -> M:
        known = CATALOGUE.get(name)
        if known is not None and (known.cls.__module__, known.cls.__qualname__) != (cls.__module__, cls.__qualname__):
            raise ValueError(f"method name {name!r} is taken by {known.cls.__module__}.{known.cls.__qualname__}.")
        cls.name = name
        CATALOGUE[name] = Entry(
            name, cls, site, modality, mechanism, training, source, query_aware, inferred, fit, principle
        )
        return cls

    return enter


@cache
def _fill() -> Plugins:
    """Import the shelf, then what other packages offer in the entry-point group ``laconic.methods``."""
    import_module("laconic.methods")  # by name: the shelf stands above everything, and nothing else imports it
    return load_plugins(GROUP)


def terms(text: str) -> set[str]:
    """The terms of a text with commas or "and" between them."""
    return {term.strip() for term in text.replace(" and ", ",").split(",")} - {""}


def list_methods(pattern: str = "*") -> list[Entry]:
    """Catalogue entries whose name matches the shell pattern, sorted by site and name.

    Raises:
        UnknownNameError: nothing matches; the closest names are offered.
        EntryPointError: `pattern` is the name of another package's entry point that cannot be loaded.
    """
    plugins = _fill()
    found = [e for e in CATALOGUE.values() if fnmatch.fnmatch(e.name, pattern)]
    if not found:
        plugins.check(pattern)
    return sorted(_some(found, pattern, CATALOGUE), key=_place)


def outline(pattern: str = "*") -> Sequence[Entry | Line]:
    """What `list_methods` lists, without importing the methods where no other package offers any."""
    if CATALOGUE or any_plugins(GROUP):
        return list_methods(pattern)
    known = shelf.lines()
    found = [line for line in known.values() if fnmatch.fnmatch(line.name, pattern)]
    return sorted(_some(found, pattern, known), key=_place)


def _some(found: list[L], pattern: str, known: Iterable[str]) -> list[L]:
    if not found:
        raise UnknownNameError(f"no method matches {pattern!r}: {closest(pattern.strip('*'), known, shelf.LISTED_BY)}")
    return found


def _place(entry: Entry | Line) -> tuple[int, str]:
    return sites().index(entry.site), entry.name


def find(name: str) -> Entry:
    """The entry called `name`.

    Raises:
        UnknownNameError: there is none; the closest names are offered.
        EntryPointError: it is the name of another package's entry point that cannot be loaded.
    """
    check_name(name)
    plugins = _fill()
    if name not in CATALOGUE:
        plugins.check(name)
        raise UnknownNameError(f"unknown method {name!r}: {closest(name, CATALOGUE, shelf.LISTED_BY)}")
    return CATALOGUE[name]


def check_name(name: str) -> None:
    """Refuse a name that no method can have, before anything heavy is imported for the catalogue. Where other packages
    offer methods, only the full catalogue can tell.

    Raises:
        UnknownNameError: there is none; the closest names are offered.
    """
    if name not in CATALOGUE and not any_plugins(GROUP):
        shelf.check_name(name, tuple(CATALOGUE))


def create_method(spec: str, **budget: Any) -> Method:
    """A method from text such as ``"NAME"`` or ``"NAME:key=value,keep=0.2"``.

    Args:
        spec: name, then parameters as ``key=value`` pairs; a budget given here wins over `budget`.
        budget: keep=, tokens=, bytes= or protect= for methods whose spec names no budget.
    """
    name, _, rest = spec.partition(":")
    entry = find(name.strip())
    allowed = {f.name: f for f in dataclasses.fields(entry.cls)}
    given = parameters_of(spec, rest)
    for key in given:
        if key not in allowed:
            raise UnknownNameError(f"{spec!r}: {name} has no parameter {key!r}: {closest(key, allowed)}")
    if has_budget(spec):
        budget = {k: v for k, v in budget.items() if k not in BUDGETS}
    try:
        return entry.cls(**{k: v for k, v in budget.items() if v is not None} | given)
    except TypeError as error:
        raise BudgetError(f"{spec!r}: {error}") from error


def has_budget(spec: str) -> bool:
    """Whether a text such as ``"NAME:keep=0.2"`` names a budget."""
    return any(pair.partition("=")[0].strip() in BUDGETS for pair in spec.partition(":")[2].split(","))


def parameters_of(spec: str, text: str) -> dict[str, Any]:
    """The pairs ``key=value`` of `text`, the part after the colon of `spec`."""
    given: dict[str, Any] = {}
    for pair in filter(None, (p.strip() for p in text.split(","))):
        key, eq, value = pair.partition("=")
        if not eq or key in given:
            raise ValueError(f"{spec!r}: give {key} once, as {key}=value.")
        given[key] = _parse(value)
    return given


def _parse(text: str) -> Any:
    """A number (also as 10%), true/false/none, or the text itself."""
    words = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    for kind in (int, share):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
