"""What the trainings of learned memories share: contexts, soft tokens before the frozen model, the loss on its answers."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel

from laconic.fit.contract import TrainingFit
from laconic.fit.schedules import warmup_cosine
from laconic.fit.slots import Reading, SlotReadings
from laconic.memory.compressor import Compressor, embedded


@dataclass(kw_only=True)
class MemoryFit(TrainingFit):
    """A network that makes soft tokens, trained so that the frozen model answers from them.

    A subclass gives `network`; it may change `loss`.

    Args:
        keeps: shares of soft tokens; every step draws one, and the artifact serves them all.
        lengths: of the contexts, in facts; every step draws one.
        batch_size: contexts of a step.
        warmup: share of the steps before the peak of the cosine.
        segment: tokens of a segment.
    """

    keeps: tuple[float, ...] = (0.5, 0.25)
    lengths: tuple[int, ...] = (16,)
    batch_size: int = 32
    steps: int = 1000
    lr: float = 2e-3
    clip: float | None = 1.0
    warmup: float = 0.03
    segment: int = 16

    stored: ClassVar[torch.dtype] = torch.float16

    def network(self, model: PreTrainedModel) -> Compressor:
        """What is trained."""
        raise NotImplementedError(f"{type(self).__name__} must define network().")

    def build(self, model: PreTrainedModel, tokenizer: Any) -> Compressor:
        self.model, self.tokenizer, self.readings = model, tokenizer, SlotReadings(tokenizer)
        self.right: list[Tensor] = []
        self.compressor = self.network(model)
        self._match()
        return self.compressor

    @torch.no_grad()
    def _match(self) -> None:
        """Begin with soft tokens as long as the embeddings of the context."""
        reading, keep = self.batch(0)
        whole = self.compressor.to(self.model.device).contexts(self.model, reading.context, keep)
        self.compressor.gain.mul_(embedded(self.model, reading.context).norm(dim=-1).mean() / whole.norm(dim=-1).mean())

    def rate(self, step: int) -> float:
        return warmup_cosine(step, self.steps, self.warmup)

    def batch(self, step: int) -> tuple[Reading, float]:
        return self.drawn(step)

    def drawn(self, step: int, copying: bool = False) -> tuple[Reading, float]:
        """Contexts, and the share of soft tokens. The end of a turn is not learned: the model ends its answers as it is."""
        rng = random.Random(f"{self.seed}-{step}")
        keep, facts = rng.choice(self.keeps), rng.choice(self.lengths)
        drawn = self.readings.draw(rng, self.batch_size, facts, copying)
        answers = replace(drawn, learned=drawn.learned & (drawn.rest != self.readings.end))
        return answers.to(self.model.device), keep

    def loss(self, batch: tuple[Reading, float]) -> Tensor:
        reading, keep = batch
        return self.answer_loss(reading, self.compressor.contexts(self.model, reading.context, keep))

    def answer_loss(self, reading: Reading, soft: Tensor) -> Tensor:
        """Cross-entropy of what is learned after the soft tokens [B, m, d]."""
        logits, wanted = predicted(self.model, reading, soft)
        self.right.append((logits.argmax(-1) == wanted).float().mean())
        return F.cross_entropy(logits, wanted)

    def progress(self) -> str:
        right, self.right = self.right, []
        return f"right {100 * float(torch.stack(right).mean()):.1f} %"

    def facts(self) -> dict[str, Any]:
        return {"keeps": list(self.keeps), "segment": self.segment}


def mixed(model: PreTrainedModel, reading: Reading, soft: Tensor) -> Tensor:
    """Embeddings of opening, soft tokens [B, m, d] and rest, in the model's type."""
    batch = len(soft)
    parts = [embedded(model, reading.opening.expand(batch, -1)), soft, embedded(model, reading.rest)]
    return torch.cat(parts, 1).to(model.dtype)


def predicted(model: PreTrainedModel, reading: Reading, soft: Tensor) -> tuple[Tensor, Tensor]:
    """Logits of all that is learned [N, V], and the right tokens [N], when soft tokens [B, m, d] stand for the context."""
    parts: Any = model
    hidden = parts.model(inputs_embeds=mixed(model, reading, soft), use_cache=False).last_hidden_state
    before = hidden[:, -reading.rest.shape[1] - 1 : -1]  # the states that predict each token of the rest
    return parts.lm_head(before[reading.learned]).float(), reading.rest[reading.learned]
