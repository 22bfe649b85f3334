"""What an encoder that merges and drops tokens hands on to the stream: one token for every cluster of patches."""

from __future__ import annotations

import threading
from collections import deque

import torch
from torch import Tensor

from laconic.errors import UnsupportedModelError
from laconic.families.vision import VisualSpan
from laconic.stream.stream import Cut, Policy, Stream
from laconic.stream.views import Reduced, by_view


class Clusters(threading.local):
    """Features that were merged in this thread, with the merged token of each patch: the images and videos of one pass."""

    def __init__(self) -> None:
        self.done: deque[tuple[Tensor, Tensor]] = deque(maxlen=2)

    def note(self, features: Tensor, source: Tensor) -> None:
        """What `MergingTower` calls when it is done: features that go to the projector, and the merged token of each patch
        [V, P], -1 where it was dropped."""
        self.done.append((features, source))

    def cut(self, stream: Stream, name: str, positions: Policy) -> Cut:
        """The cut before layer 0 that keeps one token for every cluster, for the method `name`.

        Raises:
            UnsupportedModelError: the model resamples patches after its encoder.
        """
        clusters: dict[str, Tensor] = {}
        for modality, call in stream.visual.calls.items():
            source = next(source for features, source in self.done if features is call.before)
            views = torch.arange(len(source), device=source.device)[:, None]
            clusters[modality] = torch.where(source < 0, -1, source + views * (source.amax() + 1)).flatten()

        def reduce(number: int, span: VisualSpan, must: Tensor) -> Reduced:
            if span.resampled:
                raise UnsupportedModelError(
                    f"{name}: the model resamples the patches of {span.modality} {span.image} after the encoder, so no "
                    "token of the prompt is one merged token; show fewer crops, or use a method that acts on features."
                )
            mine = clusters[span.modality][span.patches][span.cells >= 0]
            return first_of_each(mine, must)

        cut = by_view(stream, reduce, positions)
        self.done.clear()
        return cut


def first_of_each(clusters: Tensor, must: Tensor) -> Reduced:
    """The first token of every cluster, or its first protected one; `clusters` [n] are any numbers from 0, -1 is dropped."""
    n, stays = len(clusters), clusters >= 0
    _, numbers = clusters[stays].unique(return_inverse=True)
    order = (torch.where(must, 0, n) + torch.arange(n, device=clusters.device))[stays]
    first = torch.full((int(numbers.max()) + 1,), 2 * n, device=clusters.device)
    first = first.scatter_reduce(0, numbers, order, "amin") % n
    to = torch.full_like(clusters, -1)
    to[stays] = first[numbers]
    return Reduced(first.sort().values, to)
