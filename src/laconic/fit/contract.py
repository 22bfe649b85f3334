"""The contract of a fit: a dataclass of settings that says what is measured or trained, on what, and towards what."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from laconic.tasks.text.retrieval import EVALUATION_SEED

Note = Callable[[str], None]
"""Receives a line of progress."""


@dataclass(kw_only=True)
class Fit:
    """What one method measures about a model, with its settings.

    The trainer calls `build`, and writes what `facts` returns. This class has no steps; a method that
    trains something derives from `TrainingFit`.

    Args:
        seed: of everything that is drawn, 0 to 999,999; evaluation uses the seeds from 1,000,000 on.

    Raises:
        ValueError: a setting out of range.
    """

    seed: int = 0

    method: ClassVar[str] = ""
    """The method's name in the catalogue."""
    standalone: ClassVar[bool] = False
    """Whether what is trained stands beside no model: `build` gets None for both, and the artifact belongs to no weights."""
    may_be_zero: ClassVar[tuple[str, ...]] = ("seed",)
    """Settings that may be 0; all other numbers must be positive."""
    unused: ClassVar[tuple[str, ...]] = ()
    """Settings of a class it inherits from that have no part in it; they are not listed, and refused."""
    explained_in: ClassVar[tuple[type, ...]] = ()
    """Classes whose docstrings explain those settings that describe the network."""

    def __post_init__(self) -> None:
        for given in fields(self):
            value = getattr(self, given.name)
            value = tuple(value) if isinstance(value, list) else value  # from an artifact's header
            if given.name in self.unused and value != given.default:
                raise ValueError(f"{self.method}: {given.name} has no part in this training; leave it out.")
        for name, value in self.settings().items():
            for x in value if isinstance(value, (list, tuple)) else (value,):
                if isinstance(x, (int, float)) and not isinstance(x, bool) and x <= 0:
                    if name not in self.may_be_zero:
                        raise ValueError(f"{self.method}: {name}={value} must be positive.")
                    if x < 0:
                        raise ValueError(f"{self.method}: {name}={value} must be at least 0.")
        if self.seed >= EVALUATION_SEED:
            last = EVALUATION_SEED - 1
            raise ValueError(f"{self.method}: seed={self.seed} is reserved for evaluation; use 0 to {last}.")
        self.note: Note = lambda line: None
        self.seconds = 0.0
        """What the steps of a training have taken so far, those before it was resumed included."""

    def settings(self) -> dict[str, Any]:
        """All settings by name, for the artifact and for checkpoints."""
        return asdict(self)

    def build(self, model: PreTrainedModel, tokenizer: Any) -> nn.Module | None:
        """Prepare for `model`; return what is trained, None when nothing is.

        torch's generator is seeded with `seed` before. Move nothing to the model's device: the trainer does.

        Args:
            tokenizer: of the model, or its processor if it sees images.
        """
        self.model, self.tokenizer = model, tokenizer
        return None

    def facts(self) -> dict[str, Any]:
        """What the method reads from the artifact besides tensors, as JSON; called once, after the last step.

        `self.note(line)` reports progress to the user. A fit that trains nothing must return something.
        """
        raise NotImplementedError(f"{type(self).__name__} must define facts().")

    def tensors(self) -> dict[str, Tensor]:
        """What a measurement found besides facts, as numbers on the CPU; called once, after `facts`. A training's tensors
        are those of its module."""
        return {}


@dataclass(kw_only=True)
class TrainingFit(Fit):
    """A fit that trains a module, step by step, beside the frozen model.

    `batch` and `loss` are required. Equal seeds and steps must give equal batches, so that a resumed training sees what an
    uninterrupted one would have seen; draw with ``random.Random(f"{self.seed}-{step}")``.

    Args:
        steps: of the optimiser.
        lr: learning rate at its peak; `rate` may lower it from step to step.
        clip: largest norm of the gradient; None: no clipping.
        log_every, save_every: steps between lines of the log, and between checkpoints.
    """

    steps: int = 1000
    lr: float = 1e-3
    clip: float | None = None
    log_every: int = 25
    save_every: int = 100

    attention: ClassVar[str | None] = None
    """The attention implementation that the model must use, such as ``"eager"`` where attention weights are read."""
    stored: ClassVar[torch.dtype] = torch.bfloat16
    """The type in which the artifact holds the module's floating-point numbers; checkpoints hold them exactly."""
    free: ClassVar[tuple[str, ...]] = ("steps", "log_every", "save_every")
    """Settings that may change when a training is resumed."""

    def build(self, model: PreTrainedModel, tokenizer: Any) -> nn.Module:
        raise NotImplementedError(f"{type(self).__name__} must define build() and return the module that it trains.")

    def prepare(self, folder: Path | None, resume: bool) -> None:
        """Called once before the first step, for slow work such as making labels.

        Args:
            folder: where to keep progress, so that a killed training can be resumed; None: nowhere.
            resume: continue from what is there; False: start over.
        """

    def optimizer(self, module: nn.Module) -> torch.optim.Optimizer:
        """The optimiser; its learning rates are peaks, which `rate` scales."""
        return torch.optim.AdamW(module.parameters(), lr=self.lr, weight_decay=0.0)

    def rate(self, step: int) -> float:
        """Factor on the learning rates in `step`, from 0; see `laconic.fit.schedules`."""
        return 1.0

    def batch(self, step: int) -> Any:
        """What `loss` takes in `step`, from 0, on the model's device."""
        raise NotImplementedError(f"{type(self).__name__} must define batch().")

    def loss(self, batch: Any) -> Tensor | Iterable[Tensor]:
        """The loss, a scalar; or its terms one by one, each of which is backpropagated before the next is computed."""
        raise NotImplementedError(f"{type(self).__name__} must define loss().")

    def progress(self) -> str:
        """What the log says besides the mean loss since its last line, such as ``"accuracy 0.91"``."""
        return ""

    def facts(self) -> dict[str, Any]:
        return {}
