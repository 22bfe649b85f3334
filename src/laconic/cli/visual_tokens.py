"""Which tokens of a prompt show image patches, and how many of them ran through each layer, whatever the methods."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from torch import nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from laconic.families import family_of
from laconic.families.vision import VisionWatch
from laconic.session import Session


class VisualTokens:
    """Watches one prompt being read.

    Attributes:
        numbers: places in the prompt of the tokens that show patches; line ends and other separators do not count.
    """

    def __init__(self, model: PreTrainedModel):
        self.numbers: set[int] = set()
        self._stack = family_of(model).stack(model)
        self._watch = VisionWatch(model)
        self._handle: RemovableHandle | None = None

    def __enter__(self) -> VisualTokens:
        self._watch.__enter__()
        self._handle = self._stack.register_forward_pre_hook(self._look)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        assert self._handle is not None
        self._handle.remove()
        self._watch.__exit__(kind, error, trace)

    def _look(self, module: nn.Module, args: Any) -> None:
        visual = self._watch.visual
        if visual is not None:
            self.numbers = set((visual.mask & ~visual.separators)[0].nonzero()[:, 0].tolist())

    def by_layer(self, session: Session) -> dict[int, float]:
        """Visual tokens that ran through each compressed layer: as the session counted them, where it has a token method,
        else those that a cache method left in the stream."""
        stats = session.stats
        if stats.visual:
            return stats.visual
        counts: dict[int, float] = {}
        shortened = {e.layer: e.stream[0].tolist() for e in session.trace.events if e.stream is not None}
        left = self.numbers
        for layer in range(session.shape.layers):
            if layer - 1 in shortened:
                left = self.numbers & set(shortened[layer - 1])
            if layer in stats.stream:
                counts[layer] = len(left)
        return counts
