"""The contract of a seam: what a session opens around a model for the methods of one site, and restores on exit."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from enum import IntEnum
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn
from transformers import PreTrainedModel

from laconic.errors import ConflictError
from laconic.families.base import Family
from laconic.measure.cost import Shape
from laconic.method import Method
from laconic.running import Running
from laconic.step import Step

if TYPE_CHECKING:
    from laconic.cache.cache import CompressedCache
    from laconic.measure.session_meter import SessionMeter
    from laconic.measure.stats import Stats


class Order(IntEnum):
    """The order of laconic's own seams; a seam of another package may use any number.

    Weights come first: modules are replaced before anything hooks them, and what thinks follows, which may bring other
    numbers for them. Positions are put right before anything reads them.
    The stream follows, so that its pre-hooks on the decoder (which images came) run before the session's, and what it cuts
    before layer 0 is gone before pseudo tokens are appended to the prompt. Hidden states are noted after both, as the layers
    get them. The cache's two install no hooks; entries come before storage because the first seam that has its own budget is
    the one whose budget the cache is held to.
    """

    WEIGHTS = 10
    THOUGHT = 12
    OFFSETS = 15
    STREAM = 20
    ENCODER = 30
    PSEUDO = 40
    HIDDEN = 45
    ENTRIES = 50
    STORAGE = 60
    LAST = 100


@dataclass(frozen=True)
class Host:
    """The model that a session acts on, as seams see it.

    Attributes:
        model: what was given to `compress()`; `stack` its text decoder; `family` where things are in it.
        methods: all methods of the session, in the order given.
        tokenizer: of the model, where the session was given one.
        running: the session's calls; what several of them must not do at once asks whether there are others.
    """

    model: PreTrainedModel
    stack: PreTrainedModel
    family: Family
    methods: tuple[Method, ...] = ()
    tokenizer: Any | None = None
    running: Running = field(default_factory=Running)

    @property
    def layers(self) -> nn.ModuleList:
        """The decoder's layers."""
        layers = self.stack.layers
        assert isinstance(layers, nn.ModuleList)
        return layers

    @property
    def depth(self) -> int:
        """How many layers the decoder has."""
        return len(self.layers)

    @cached_property
    def shape(self) -> Shape:
        """The sizes of the unmodified model that its cost depends on."""
        return Shape.of(self.model, self.stack)


class Seam:
    """What is open around a model for the methods that name this class in `Method.seams`. Every hook does nothing by
    default.

    A session makes one seam of each class that its methods name and calls:

    1. `check`, then `attach` of every method, then `prepare`, when it is made;
    2. `install` when it is entered, in ascending `order`. Hooks on modules run in the order in which they were registered,
       and the session registers its own on the model and its decoder last: a pre-hook of a seam runs before them. Whatever
       `install` pushes on the exit stack is undone in reverse order on exit, also after an exception;
    3. in every pass `adopt` when the model is called, `enter` right before the decoder runs (ascending `order`), `leave`
       right after it (descending), `finish` when the model returns. After a call that raised, `leave` and `finish` are
       skipped;
    4. `stats` whenever the session's figures are read.

    Several threads may call the model at once, each on a cache of its own. What a seam remembers of a pass it keeps by
    thread (`threading.local`): a model runs in the thread that calls it. What only one call can have at a time it refuses in
    `adopt`, which never runs in two threads at once, where ``host.running.others``.

    Args:
        host: the model and all methods of the session.
        methods: those that name this class, in the order given; none where a session opens the seam in any case.
    """

    order: ClassVar[int] = Order.LAST
    single: ClassVar[bool] = False
    """Whether one method per session may name this seam, whatever the methods claim."""

    shape: Shape | None = None
    """The sizes of the decoder that runs, where `install` has changed them."""

    def __init__(self, host: Host, methods: tuple[Any, ...]):
        self.host, self.methods = host, methods

    @property
    def budgeted(self) -> Any | None:
        """The method (a `Method`) whose budget the cache is held to; None where this seam's methods set no such budget."""
        return None

    @property
    def stores_less(self) -> bool:
        """Whether this seam may make the cache hold fewer entries than the budget asks for, so that this is not an error."""
        return False

    def check(self) -> None:
        """Refuse a model or a combination of methods, before any method has loaded anything."""

    def prepare(self) -> None:
        """Read what the methods ask for, now that each of them knows the model, and refuse what the model cannot do."""

    def install(self, restore: ExitStack) -> None:
        """Change the model: register hooks, replace modules. Push on `restore` what undoes it."""

    def adopt(self, cache: CompressedCache) -> None:
        """A pass begins, on `cache`: a new one, that of the latest pass, or that of an earlier session."""

    def enter(self, kwargs: dict[str, Any], step: Step, ids: Tensor | None) -> dict[str, Any]:
        """The decoder is about to run.

        Args:
            kwargs: its arguments. `step`: the pass, to be kept in agreement with them.
            ids: token ids of the pass, [B, T]; None where the model was called with embeddings.

        Returns:
            the arguments that it gets instead.
        """
        return kwargs

    def leave(self, output: Any, step: Step) -> Any:
        """The decoder has run and returned `output`; what the model gets instead."""
        return output

    def finish(self, step: Step, cache: CompressedCache) -> None:
        """The model has returned: add to the cache's figures what this seam has counted."""

    def stats(self, stats: Stats, cache: CompressedCache, meter: SessionMeter) -> None:
        """Fill in what only this seam knows; the cache's own figures are there already. `meter`: what the session is held
        to."""


def check_claims(methods: Iterable[Method]) -> None:
    """Raise `ConflictError` when two methods claim the same seam."""
    owners: dict[str, Method] = {}
    for method in methods:
        for claim in method.claims:
            if claim in owners:
                raise ConflictError(
                    f"{owners[claim].name} and {method.name} both claim the seam {claim!r}; use one of them per session."
                )
            owners[claim] = method


def seams_of(host: Host, always: Iterable[type[Seam]] = ()) -> list[Seam]:
    """One seam of every class that a method of the host names, and of those in `always`, in their order.

    Raises:
        ConflictError: several methods name a seam that takes one.
    """
    made: list[Seam] = []
    for kind in dict.fromkeys([*always, *(kind for method in host.methods for kind in method.seams)]):
        own = tuple(method for method in host.methods if kind in method.seams)
        if kind.single and len(own) > 1:
            names = " and ".join(method.name or type(method).__name__ for method in own)
            raise ConflictError(f"{names} both act through {kind.__name__}, which takes one method per session; use one.")
        made.append(kind(host, own))
    return sorted(made, key=lambda seam: seam.order)
