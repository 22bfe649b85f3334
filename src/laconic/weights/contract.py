"""The contract of methods that act on a model's weights: other modules in place of its own, while a session is open."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar

from transformers import PreTrainedModel

from laconic.method import Method
from laconic.seams import Seam
from laconic.weights.seam import WeightSeam


@dataclass(kw_only=True)
class WeightMethod(Method):
    """Runs the model with other weights or modules; when the session closes, the model is as it was before.

    A subclass gives `apply`. A method whose weights depend on the prompt also has the functions of
    `laconic.weights.hooks.PerPrompt`. It composes with methods at other sites: their hooks are registered on the modules
    that run.
    """

    claims: ClassVar[frozenset[str]] = frozenset({"weights"})
    seams: ClassVar[tuple[type[Seam], ...]] = (WeightSeam,)
    default_keep: ClassVar[float | None] = None
    resizes: ClassVar[bool] = False
    """Whether it changes matrices of the model itself, so that what runs has to be counted anew; modules put beside them are
    counted by themselves."""

    def apply(self, model: PreTrainedModel) -> AbstractContextManager[Any]:
        """While the returned context is open, the method's modules are in place; afterwards the model's own are back, also
        after an exception.

        It is entered once per session, before anything else is hooked, so it may replace whole decoder layers. Not entered
        at the neutral budget.
        """
        raise NotImplementedError(f"{type(self).__name__} must define apply().")

    def without_attention(self, depth: int) -> Collection[int]:
        """Decoder layers, of `depth`, that run without attention while the method is applied; known once `attach` has run.
        They store nothing. Layer 0 cannot be one: positions are counted in its cache."""
        return ()
