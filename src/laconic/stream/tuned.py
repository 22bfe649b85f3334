"""Methods on tokens that also run on a model tuned with them: its weights are in the model while a session is open."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, ClassVar

from transformers import PreTrainedModel

from laconic.artifact import Artifact
from laconic.errors import ConflictError
from laconic.families.replaced import decoder_weights, replaced
from laconic.seams import Order, Seam
from laconic.stream.contract import TokenMethod
from laconic.stream.seam import StreamSeam


class TunedSeam(Seam):
    """Brings the tuned decoder of one method before anything is hooked; at the neutral setting, too, because a model may be
    tuned with a method to run without it."""

    order = Order.WEIGHTS
    methods: tuple[TunedMethod, ...]

    def check(self) -> None:
        tuned = [method.name for method in self.methods if method.artifact is not None]
        if len(tuned) > 1:
            raise ConflictError(f"{' and '.join(tuned)} each bring a tuned decoder; give the artifact of one of them.")

    def install(self, restore: ExitStack) -> None:
        for method in self.methods:
            if method.tuned is not None:
                restore.enter_context(replaced(self.host.stack, decoder_weights(method.tuned.tensors)))


@dataclass(kw_only=True)
class TunedMethod(TokenMethod):
    """A token method that works on any model, and better on one that was tuned with it.

    Args:
        artifact: what `laconic fit NAME` wrote: a file, a shipped name, or a Hub id. None: the model as it is.
    """

    artifact: str | None = None

    seams: ClassVar[tuple[type[Seam], ...]] = (StreamSeam, TunedSeam)

    def __post_init__(self) -> None:
        self.tuned: Artifact | None = None
        super().__post_init__()

    def attach(self, model: PreTrainedModel) -> None:
        self.tuned = None if self.artifact is None else Artifact.find(self.name, model, self.artifact)

    def tuned_with(self, name: str) -> Any:
        """What the model was tuned with, from the artifact; None without one."""
        return None if self.tuned is None else self.tuned.data[name]
