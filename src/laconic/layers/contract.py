"""The contract of architectures: models that compress by how they are built, and are trained from the start."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, ClassVar

from transformers import PreTrainedModel

from laconic.errors import BudgetError, SessionError
from laconic.method import Method
from laconic.seams import Seam


class ArchitectureSeam(Seam):
    """Refuses to be opened: a model that was trained otherwise cannot be made into one of these."""

    def check(self) -> None:
        self._refuse()

    def install(self, restore: ExitStack) -> None:
        self._refuse()

    def _refuse(self) -> None:
        name = " and ".join(method.name for method in self.methods)
        raise SessionError(
            f"{name} is how a model is built, and this one was built and trained otherwise. Make a model with "
            f"laconic.create_method({self.methods[0].name!r}).model(vocab_size=..., hidden_size=...) and train it; it needs "
            "no session."
        )


@dataclass(kw_only=True)
class ArchitectureMethod(Method):
    """An architecture with its settings; a subclass gives `model`. What it stores follows from the settings.

    Raises:
        BudgetError: a budget.
    """

    seams: ClassVar[tuple[type[Seam], ...]] = (ArchitectureSeam,)
    default_keep: ClassVar[float | None] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.budget_from_parameters and not self.neutral:
            raise BudgetError(f"{self.name}: {self.budget}: what an architecture stores follows from its own settings.")

    def model(self, **sizes: Any) -> PreTrainedModel:
        """A model with random weights.

        Args:
            sizes: of the model, under the names that its configuration has: vocab_size, hidden_size, num_hidden_layers ...
        """
        raise NotImplementedError(f"{type(self).__name__} must define model().")
