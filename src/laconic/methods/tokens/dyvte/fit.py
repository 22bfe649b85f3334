"""Training of DyVTE's gates: does the answer survive when all visual tokens leave after a layer? (arXiv 2411.19628)

The model is frozen and runs twice per step: whole, and with the visual tokens gone after one layer, drawn for the batch.
The second run is the session that inference uses; leaving and blocking the visual columns are the same for the text.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from laconic.families.vision import vision_family_of
from laconic.fit.contract import TrainingFit
from laconic.fit.images import numbered, with_answers
from laconic.fit.losses import RightAnswers
from laconic.fit.text import IGNORED
from laconic.fit.warmed import WarmedFit
from laconic.methods.tokens.dyvte.method import DyVTE
from laconic.methods.tokens.dyvte.network import Gate, question_feature
from laconic.session import compress

Batch = tuple[dict[str, Tensor], Tensor]
"""Inputs with answers, padded on the left, and labels [B, T]."""


def safe(whole: Tensor, short: Tensor, labels: Tensor, agree: float, worse: float) -> Tensor:
    """Whether each answer survives: logits of the two runs and labels of the same m tokens, [B, m, V] and [B, m] (-100 where
    there is no answer) -> bool [B].

    Agreement of the likeliest tokens over `agree`, and a mean loss of at most `worse` times the whole model's.
    """
    asked = labels != IGNORED
    count = asked.sum(1).clamp(min=1)
    same = ((whole.argmax(-1) == short.argmax(-1)) & asked).sum(1) / count
    losses = []
    for logits in (whole, short):
        each = F.cross_entropy(logits.float().transpose(1, 2), labels, ignore_index=IGNORED, reduction="none")
        losses.append(each.sum(1) / count)
    return (same > agree) & (losses[1] <= worse * losses[0])


def answers_at(labels: Tensor) -> int:
    """Columns from the end that hold all answers and the token before them."""
    return int(labels.shape[1] - (labels != IGNORED).any(0).nonzero()[0, 0]) + 1


@dataclass(kw_only=True)
class DyVTEFit(WarmedFit):
    """The gates that say when visual tokens may leave.

    Args:
        width: of the hidden layer (2048, as published; 128 does for small models).
        batch_size: questions per step.
        lr: peak of the cosine. warmup: share of the steps before it (0.03).
        agree: share of the answer's tokens that must not change (over 0.99); worse: how many times the loss may grow (1.03).
        check: batches after training from which the shares that thresholds keep are measured.
        file: JSON lines with "image", "question" and "answer"; empty for drawn scenes.
    """

    width: int = 2048
    batch_size: int = 16
    steps: int = 400
    lr: float = 6e-5
    warmup: float = 0.03
    agree: float = 0.99
    worse: float = 1.03
    check: int = 8
    file: str = ""

    method: ClassVar[str] = "dyvte"
    free: ClassVar[tuple[str, ...]] = (*TrainingFit.free, "check")

    def build(self, model: PreTrainedModel, tokenizer: Any) -> nn.ModuleList:
        config: Any = model.config.get_text_config()
        self.gates = nn.ModuleList(Gate(config.hidden_size, self.width) for _ in range(config.num_hidden_layers - 1))
        self.model, self.processor, self.questions = model, tokenizer, numbered(self.file, self.seed)
        self.right = RightAnswers()
        return self.gates

    def examples(self, number: int) -> Batch:
        """Batch `number`, on the model's device."""
        asked = [self.questions(number * self.batch_size + i) for i in range(self.batch_size)]
        given, labels = with_answers(self.processor, asked)
        return {k: v.to(self.model.device) for k, v in given.items()}, labels.to(self.model.device)

    def batch(self, step: int) -> tuple[Batch, int]:
        """A batch and the layer whose gate it trains."""
        return self.examples(step), random.Random(f"{self.seed}-{step}").randrange(len(self.gates))

    def loss(self, batch: tuple[Batch, int]) -> Tensor:
        (given, labels), layer = batch
        whole, features = self.whole(given, labels)
        leave = self.label(given, labels, whole, layer).long()
        logits = self.gates[layer](features[layer])
        self.right.note(logits.argmax(-1) == leave)
        return F.cross_entropy(logits, leave)

    @torch.no_grad()
    def whole(self, given: dict[str, Tensor], labels: Tensor) -> tuple[Tensor, Tensor]:
        """Logits at the answers [B, m, V], and what each gate reads of each question, [L - 1, B, 2D]."""
        out = self.model(**given, output_hidden_states=True, use_cache=False, logits_to_keep=answers_at(labels))
        token = given["input_ids"] == vision_family_of(self.model).token_id(self.model, "image")
        features = []
        for hidden in out.hidden_states[1:-1]:
            rows = []
            for b, row in enumerate(hidden):
                first = int(token[b].nonzero()[-1, 0]) + 1
                stop = int((labels[b] != IGNORED).nonzero()[0, 0])
                rows.append(question_feature(row[first:stop]))
            features.append(torch.stack(rows))
        return out.logits, torch.stack(features)

    @torch.no_grad()
    def label(self, given: dict[str, Tensor], labels: Tensor, whole: Tensor, layer: int) -> Tensor:
        """Whether the visual tokens of each sample may leave after `layer`, bool [B]."""
        columns = answers_at(labels)
        with compress(self.model, DyVTE(exit_layer=layer)):
            short = self.model(**given, logits_to_keep=columns).logits
        wanted = labels[:, 1 - columns :]
        return safe(whole[:, :-1], short[:, :-1], wanted, self.agree, self.worse)

    def progress(self) -> str:
        return self.right.told()

    @torch.no_grad()
    def shares(self) -> list[tuple[float, float]]:
        """(threshold, mean share of the visual tokens over layers) on batches that were not trained on."""
        chances = []
        for number in range(self.steps, self.steps + self.check):
            _, features = self.whole(*self.examples(number))
            logits = torch.stack([gate(x) for gate, x in zip(self.gates, features, strict=True)])
            chances.append(logits.float().softmax(-1)[..., 1])
        chance, depth = torch.cat(chances, 1), len(self.gates) + 1
        # Where gates are certain, nothing lies between 0.01 and 0.99: take the observed probabilities as thresholds.
        ranks = chance.double().flatten().quantile(torch.linspace(0, 1, 97, dtype=torch.float64))
        found = []
        for tau in sorted({0.0, 0.5, *ranks.tolist()}):
            leaves = chance > tau
            first = torch.where(leaves.any(0), leaves.int().argmax(0), depth - 1)
            found.append((tau, round(float((first + 1).double().mean()) / depth, 6)))
        return found

    def facts(self) -> dict[str, Any]:
        shares = self.shares()
        half = dict(shares)[0.5]
        self.note(f"at threshold 0.5 the visual tokens run through {100 * half:.1f} % of the layers")
        return {"shares": shares}
