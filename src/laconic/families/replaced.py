"""Other weights in a model for a while."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor, nn

from laconic.errors import ArtifactError


def decoder_weights(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those of a trained decoder (`laconic.fit.thinker`), by their names in the model's own."""
    return {name.removeprefix("decoder."): x for name, x in tensors.items() if name.startswith("decoder.")}


@contextmanager
def replaced(model: nn.Module, weights: Mapping[str, Tensor]) -> Iterator[None]:
    """While open, the parameters of `model` named in `weights` hold these numbers, in their own type, on their own device;
    afterwards they hold what they held before, the very same storage.

    Raises:
        ArtifactError: a name that the model has no parameter for, or another shape.
    """
    own = dict(model.named_parameters())
    for name, x in weights.items():
        if name not in own or own[name].shape != x.shape:
            found = tuple(own[name].shape) if name in own else "nothing"
            raise ArtifactError(f"{name}: the artifact has {tuple(x.shape)} and the model {found}; use the model it is for.")
    before = {name: own[name].data for name in weights}
    try:
        for name, x in weights.items():
            own[name].data = x.to(device=own[name].device, dtype=own[name].dtype)
        yield
    finally:
        for name, x in before.items():
            own[name].data = x
