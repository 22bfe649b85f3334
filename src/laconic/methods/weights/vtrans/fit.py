"""How VTrans's gates are trained beside the frozen model, towards a share of parameters (arXiv 2406.05276)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from laconic.fit.contract import TrainingFit
from laconic.fit.schedules import linear_decay
from laconic.fit.text import FileSource, ProseSource, Source
from laconic.methods.weights.vtrans.method import kept, threshold
from laconic.methods.weights.vtrans.network import Gates, Sizes
from laconic.methods.weights.vtrans.placed import drawn, placed


@dataclass(kw_only=True)
class VTransFit(TrainingFit):
    """Gates over residual channels, KV heads and neurons, trained on text with the weights frozen.

    The loss is that of the text, ``l1 * (s - t) + l2 * (s - t)^2`` for the sparsity s that the gates expect and the target
    t, which rises over the warm-up, and the gates' KL. l1 and l2 ascend.

    Args:
        sparsity: share of the layers' parameters that is to go.
        logvar, sharpness: where gates start, and how sharp "stays" is. The defaults (-5, 1) are for hundreds of steps; the
            release trains thousands with -9 and 10.
        multiplier_lr: of l1 and l2. `kl`: factor on the KL. `warmup`: share of the steps in which t rises.
        text: a UTF-8 file; None: the training part of Python's documentation.
        tokens, batch_size: of one step.
    """

    sparsity: float = 0.2
    steps: int = 500
    lr: float = 0.05
    multiplier_lr: float = 5.0
    logvar: float = -5.0
    sharpness: float = 1.0
    kl: float = 1e-6
    warmup: float = 0.4
    tokens: int = 128
    batch_size: int = 4
    text: Path | None = None

    method: ClassVar[str] = "vtrans"
    stored: ClassVar[torch.dtype] = torch.float32
    may_be_zero: ClassVar[tuple[str, ...]] = ("seed", "kl")

    def __post_init__(self) -> None:
        start, self.logvar = self.logvar, abs(self.logvar)  # it may be negative; all other settings may not
        super().__post_init__()
        self.logvar = start
        if not self.sparsity < 1:
            raise ValueError(f"vtrans: sparsity={self.sparsity} must be below 1.")

    def settings(self) -> dict[str, Any]:
        return super().settings() | {"text": None if self.text is None else self.text.name}

    def build(self, model: PreTrainedModel, tokenizer: Any) -> nn.Module:
        self.model = model
        self.gates = Gates(Sizes.of(model), self.logvar, self.sharpness)
        self.source = self._source(tokenizer)
        return self.gates

    def _source(self, tokenizer: Any) -> Source:
        return ProseSource(tokenizer) if self.text is None else FileSource(tokenizer, self.text.expanduser())

    def optimizer(self, module: nn.Module) -> torch.optim.Optimizer:
        units = [p for name, p in module.named_parameters() if name != "multipliers"]
        up: dict[str, Any] = {"params": [self.gates.multipliers], "lr": self.multiplier_lr, "maximize": True}
        return torch.optim.AdamW([{"params": units}, up], lr=self.lr, weight_decay=0.0)

    def rate(self, step: int) -> float:
        self._target = self.sparsity * min(1.0, (step + 1) / (self.warmup * self.steps))
        return linear_decay(step, self.steps)

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        ids, labels = self.source.batch(self.seed, step, self.batch_size, self.tokens)
        return ids.to(self.model.device), labels.to(self.model.device)

    def loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        ids, labels = batch
        gates = self.gates
        with placed(self.model, gates, drawn(gates), gates.soft("width").sum().detach()):
            logits = self.model(input_ids=ids, use_cache=False).logits
        text = cross_entropy(logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten())
        return text + self.constraint() + self.kl * self.information()

    def constraint(self) -> Tensor:
        """``l1 * (s - t) + l2 * (s - t)^2``."""
        gap = self.gates.sparsity() - self._target
        return self.gates.multipliers[0] * gap + self.gates.multipliers[1] * gap.square()

    def information(self) -> Tensor:
        """The gates' KL; the width's stands twice in every layer, and 30 times for the embedding."""
        gates = self.gates
        width = (2 * gates.sizes.layers + 30) * gates.kl("width")
        return 256 * gates.kl("heads") + gates.kl("neurons") + width

    def progress(self) -> str:
        return f"sparsity {float(self.gates.sparsity().detach()):.3f} hard {self.gates.hard_sparsity():.3f}"

    def facts(self) -> dict[str, Any]:
        with torch.no_grad():
            counts = {name: int(units.sum(-1).flatten()[0]) for name, units in kept(self.gates, self.sparsity).items()}
            expected = float(self.gates.sparsity())
        found = {"expected": expected, "hard": self.gates.hard_sparsity(), "threshold": threshold(self.gates, self.sparsity)}
        return {"sparsity": self.sparsity, **found, "kept": counts}
