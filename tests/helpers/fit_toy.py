"""A fit that trains a line beside a tiny model in a few milliseconds, with dropout, so that random draws count."""

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from laconic.fit import Trainer, TrainingFit
from laconic.fit.schedules import linear_decay


@dataclass(kw_only=True)
class ToyFit(TrainingFit):
    """A line with dropout."""

    width: int = 4
    steps: int = 6
    lr: float = 0.1
    log_every: int = 2
    save_every: int = 2
    pause: float = 0.0
    sizes: tuple[int, ...] = (1, 2)

    method: ClassVar[str] = "knorm"
    attention: ClassVar[str | None] = "eager"
    may_be_zero: ClassVar[tuple[str, ...]] = ("seed", "pause")
    free: ClassVar[tuple[str, ...]] = (*TrainingFit.free, "pause")

    def build(self, model: Any, tokenizer: Any) -> nn.Module:
        self.model, self.net = model, nn.Sequential(nn.Linear(self.width, 1), nn.Dropout(0.5))
        return self.net

    def rate(self, step: int) -> float:
        return linear_decay(step, self.steps)

    def batch(self, step: int) -> torch.Tensor:
        time.sleep(self.pause)
        return torch.randn(3, self.width, generator=torch.Generator().manual_seed(1000 * self.seed + step))

    def loss(self, batch: torch.Tensor) -> torch.Tensor:
        return (self.net(batch)[:, 0] - batch.sum(1)).square().mean()

    def facts(self) -> dict[str, Any]:
        return {"training": self.net.training}


def toy_model() -> LlamaForCausalLM:
    """Random weights, one layer."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=16, **sizes)).eval()


if __name__ == "__main__":  # folder, pause
    fit = ToyFit(steps=200, save_every=1, pause=float(sys.argv[2]))
    Trainer(fit, toy_model(), None, Path(sys.argv[1])).run()
