"""The contract of methods that write other weights into a model once, for every prompt; so the result can be saved."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from transformers import PreTrainedModel

from laconic.artifact import Artifact
from laconic.errors import BudgetError
from laconic.method import Reuse
from laconic.weights.contract import WeightMethod
from laconic.weights.restored import Snapshot, restored


@dataclass(kw_only=True)
class WeightEdit(WeightMethod):
    """Makes the model's weights fewer or smaller. `laconic.bake` saves what comes out; in a session the model runs with it,
    and its own weights wait meanwhile, so a session shows what becomes of answers and saves no memory.

    ``keep`` is the share that stays of what the method removes, ``1 - sparsity``; ``tokens=`` and ``bytes=`` have no
    meaning. A subclass gives `edit`, and `prepare` where it needs to know more.
    """

    reuse: ClassVar[Reuse] = "exact"
    packs: ClassVar[bool] = True
    resizes: ClassVar[bool] = True
    saves: ClassVar[str] = "nothing: the removed weights are stored as zeros, and dense kernels run over them"
    """What a saved model needs less of, for its card."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("tokens", "bytes"):
            if getattr(self, name) is not None:
                raise BudgetError(
                    f"{self.name}: {name}={getattr(self, name)} has no meaning for weights; give keep=, what stays."
                )
        self._after: Snapshot | None = None

    @property
    def sparsity(self) -> float:
        """The share that is removed."""
        return 0.0 if self.keep is None else 1 - self.keep

    def prepare(self, model: PreTrainedModel) -> None:
        """Load what belongs to this model, or refuse a model that the method does not fit. Not called at the neutral
        budget."""

    def edit(self, model: PreTrainedModel) -> dict[str, Any]:
        """Put other weights into `model`, after `prepare`; runs without gradients.

        New tensors take the places of old ones, which are never written to (`laconic.weights.restored`). Sizes follow in the
        modules and in the configuration, so that the model can be saved and loaded by its own class.

        Returns:
            what was achieved, by name, for the card of a saved model.
        """
        raise NotImplementedError(f"{type(self).__name__} must define edit().")

    def write(self, model: PreTrainedModel, folder: Path) -> None:
        """Save the edited `model` into `folder` as its own class loads it."""
        model.save_pretrained(folder)

    def attach(self, model: PreTrainedModel) -> None:
        if self.neutral:
            return
        self.prepare(model)
        with restored(model), torch.no_grad():
            self.edit(model)
            self._after = Snapshot(model)

    @contextmanager
    def apply(self, model: PreTrainedModel) -> Iterator[Any]:
        assert self._after is not None
        with restored(model):
            self._after.put()
            yield


@dataclass(kw_only=True)
class FittedEdit(WeightEdit):
    """An edit that needs an artifact.

    `laconic.bake` measures one where none is given and measuring is all that it takes.
    """

    artifact: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.fitted: Artifact | None = None
        """What was fitted, where it is at hand and in no file."""

    def prepare(self, model: PreTrainedModel) -> None:
        super().prepare(model)
        self.found(model)

    def found(self, model: PreTrainedModel) -> Artifact:
        """The artifact for `model`.

        Raises:
            ArtifactError: there is none, or it belongs to other weights.
        """
        return self.fitted or Artifact.find(self.name, model, self.artifact)
