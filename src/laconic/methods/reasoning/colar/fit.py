"""Training of CoLaR, stage 1: a model that thinks in words learns to think in blocks of them."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

from laconic.fit.chains import IGNORED, Solution, Solutions
from laconic.fit.contract import TrainingFit
from laconic.fit.schedules import warmup_cosine
from laconic.fit.thinker import Thinker
from laconic.methods.reasoning.colar.method import BEGIN, SPEED
from laconic.methods.reasoning.colar.network import LatentHead, block_labels, drawn, log_density, merged


class LatentThinker(Thinker):
    """The copy of the model with the head that draws vectors.

    Attributes:
        deviation: of the embeddings' numbers, the unit of the head.
    """

    def __init__(self, model: PreTrainedModel, width: int):
        super().__init__(model)
        self.deviation = float(self.lm.get_input_embeddings().weight.float().std())
        self.latent_head = LatentHead(model.config.get_text_config().hidden_size, width)


@dataclass(frozen=True)
class Layout:
    """A batch as the model reads it: question and speed, vectors of the chain, mark and answer; padded on the right.

    Attributes:
        embeddings: [B, T, d]. `labels`: of each position itself, [B, T]: a token of each block, the answer's tokens.
        steps: positions from which the next vector is drawn: before the first block up to the last one, [B, T].
    """

    embeddings: Tensor
    labels: Tensor
    steps: Tensor


@dataclass(kw_only=True)
class CoLaRFit(TrainingFit):
    """Cross-entropy on one token of every block and on the answer, and the distance of drawn vectors from the next input.

    Args:
        speeds: tokens of a block; every step draws one of them.
        objective: "mse": of a drawn vector (the paper's for grade-school problems); "nll": negative log-density.
        width: of the head.
        batch_size: problems of a step.
        warmup: share of the steps before the peak of the cosine.
    """

    steps: int = 800
    lr: float = 1e-3
    clip: float | None = 1.0
    speeds: tuple[int, ...] = (1, 2, 3, 4, 5)
    objective: Literal["mse", "nll"] = "mse"
    width: int = 256
    batch_size: int = 64
    warmup: float = 0.03

    method: ClassVar[str] = "colar"

    def build(self, model: PreTrainedModel, tokenizer: Any) -> LatentThinker:
        self.model, self.tokenizer = model, tokenizer
        self.solutions = Solutions(tokenizer, {"terse": 1.0})
        self.terms: list[tuple[float, float]] = []
        self.thinker = LatentThinker(model, self.width)
        return self.thinker

    def rate(self, step: int) -> float:
        return warmup_cosine(step, self.steps, self.warmup)

    def batch(self, step: int) -> tuple[list[Solution], int]:
        rng = random.Random(f"colar-{self.seed}-{step}")
        speed = rng.choice(self.speeds)
        return self.solutions.draw(rng, self.batch_size), speed

    def layout(self, solutions: list[Solution], speed: int) -> Layout:
        """The inputs of a batch at one speed."""
        device, opening = self.model.device, self.tokenizer.convert_tokens_to_ids([SPEED, str(speed), BEGIN])
        chains = [torch.tensor(x.thought, device=device) for x in solutions]
        ids = pad_sequence(chains, batch_first=True)
        real = pad_sequence([torch.ones_like(x) for x in chains], batch_first=True)
        with torch.no_grad():
            vectors, count = merged(self.thinker.embedded(ids), real, speed)
            labels = block_labels(ids, real, speed)
            rows, wanted, steps = [], [], []
            for i, x in enumerate(solutions):
                before, blocks = torch.tensor(x.prompt + opening, device=device), int((count[i] > 0).sum())
                answer = torch.tensor(x.answer, device=device)
                rows.append(torch.cat([self.thinker.embedded(before), vectors[i, :blocks], self.thinker.embedded(answer)]))
                wanted.append(torch.cat([torch.full_like(before, IGNORED), labels[i, :blocks], answer]))
                at = torch.arange(len(rows[-1]), device=device)
                steps.append((at >= len(before) - 1) & (at < len(before) + blocks))
            return Layout(
                pad_sequence(rows, batch_first=True),
                pad_sequence(wanted, batch_first=True, padding_value=IGNORED),
                pad_sequence(steps, batch_first=True),
            )

    def loss(self, batch: tuple[list[Solution], int]) -> Tensor:
        given = self.layout(*batch)
        hidden = self.thinker.states(given.embeddings)[:, :-1]
        labels, steps = given.labels[:, 1:], given.steps[:, :-1]
        words = F.cross_entropy(self.thinker.logits(hidden[labels != IGNORED]), labels[labels != IGNORED])
        wanted = given.embeddings[:, 1:][steps] / self.thinker.deviation
        vectors = self.distance(wanted, *self.thinker.latent_head(hidden[steps]))
        self.terms.append((float(words.detach()), float(vectors.detach())))
        return words + vectors

    def distance(self, wanted: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
        """Of a drawn vector from the wanted one, or the latter's density, averaged over the d dimensions; [N, d] each."""
        if self.objective == "nll":
            return -log_density(wanted, mean, log_std).mean()
        return (drawn(mean, log_std) - wanted).square().mean()

    def progress(self) -> str:
        words, vectors = (sum(x) / len(x) for x in zip(*self.terms, strict=True))
        self.terms = []
        return f"words {words:.4f} vectors {vectors:.4f}"

    def facts(self) -> dict[str, Any]:
        return {"speeds": list(self.speeds), "width": self.width, "deviation": self.thinker.deviation}
