"""Training of CaCoVID's policy by reinforcement: the frozen model answers with many sets of tokens, and what occurs in sets
that earn a right answer is kept rather (arXiv 2602.01649)."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import PreTrainedModel

from laconic.fit.losses import right
from laconic.fit.text import IGNORED
from laconic.fit.visual import Asked, VisualFit
from laconic.methods.tokens.cacovid.network import Policy, scores
from laconic.methods.tokens.cacovid.sampling import drawn, objective, peaks


@dataclass(kw_only=True)
class CaCoVIDFit(VisualFit):
    """The policy's layer and its head for tokens; with one frame an image there is nothing to choose between frames.

    Args:
        sets: of tokens that every question is answered with (32 as published), one of them the image's density peaks, and
            one the policy's best.
        rates: shares of the tokens in a set; each step draws one.
        grouped: sets come from groups of similar scores, as published; False: from all tokens (an ablation).
        body: learning rate of the layer, as a share of that of the heads (0.1 as published).
    """

    sets: int = 32
    rates: tuple[float, ...] = (0.02, 0.06, 0.12)
    questions: int = 4
    images: int = 2
    lr: float = 3e-4
    clip: float | None = 5.0
    body: float = 0.1
    grouped: bool = True

    method: ClassVar[str] = "cacovid"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sets < 2 or any(rate >= 1 for rate in self.rates):
            raise ValueError(f"cacovid: sets={self.sets} must be at least 2, and each of rates={self.rates} below 1.")

    def network(self, model: PreTrainedModel) -> Policy:
        return Policy(model)

    def optimizer(self, module: Any) -> torch.optim.Optimizer:
        heads = [*module.tokens.parameters(), *module.frames.parameters()]
        groups = [{"params": heads, "lr": self.lr}, {"params": list(module.layer.parameters()), "lr": self.lr * self.body}]
        return torch.optim.AdamW(groups, weight_decay=0.01)

    def loss(self, batch: tuple[Asked, random.Random]) -> Tensor:
        asked, rng = batch
        generator = torch.Generator().manual_seed(rng.randrange(2**31))
        count = max(1, round(rng.choice(self.rates) * asked.features.shape[1]))
        words, each = self.words(asked), len(asked.ids) // len(asked.features)
        words = words.masked_scatter(asked.image[..., None], asked.features.repeat_interleave(each, 0).to(words))
        logits = torch.cat([self.wanted(asked, words, b) for b in range(len(words))])
        sets = torch.stack([self.tried(logits[b], words[b][asked.image[b]], count, generator) for b in range(len(words))])
        kept = torch.zeros(*sets.shape[:2], logits.shape[1], dtype=torch.bool, device=words.device).scatter_(2, sets, True)
        rewards = self.rewards(asked, words, kept)
        self.right.note(rewards[:, 1])  # of the policy's own choice
        terms = [objective(logits[b], logits[b], kept[b], rewards[b]) for b in range(len(words))]
        return torch.stack(terms).mean()

    def wanted(self, asked: Asked, words: Tensor, b: int) -> Tensor:
        """Logits of one question's tokens, [1, N, 2]; answers and padding are not shown to the policy."""
        prompt = (asked.mask[b] == 1) & (asked.labels[b] == IGNORED)
        rows = asked.image[b][prompt].nonzero()[:, 0]
        out: Tensor = self.net(words[b][prompt].float()[None], [rows])[0]
        return out

    def tried(self, logits: Tensor, features: Tensor, count: int, generator: torch.Generator) -> Tensor:
        """Sets of tokens of one image, [sets, count]: its density peaks, the policy's best, and drawn ones."""
        wanted = scores(logits.detach()).cpu()
        some = (drawn if self.grouped else flat)(wanted, self.sets - 1, count, generator)
        return torch.cat([peaks(features, count).cpu()[None], some]).to(logits.device)

    @torch.no_grad()
    def rewards(self, asked: Asked, words: Tensor, kept: Tensor) -> Tensor:
        """Whether greedy decoding gives the whole answer when only `kept` [Q, sets, N] of the image stays, [Q, sets]."""
        sets = kept.shape[1]
        image, mask, labels = (x.repeat_interleave(sets, 0) for x in (asked.image, asked.mask, asked.labels))
        stays = ~image
        stays[image] = kept.flatten()
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        rows = len(stays)
        logits = self.model(
            inputs_embeds=words.repeat_interleave(sets, 0)[stays].unflatten(0, (rows, -1)),
            attention_mask=mask[stays].unflatten(0, (rows, -1)),
            position_ids=positions[stays].unflatten(0, (rows, -1)),
            use_cache=False,
        ).logits
        wanted = labels[stays].unflatten(0, (rows, -1))[:, 1:]
        return right(logits, wanted).float().unflatten(0, (-1, sets))


def flat(wanted: Tensor, sets: int, count: int, generator: torch.Generator) -> Tensor:
    """Sets drawn from all tokens by the softmax of their scores [v], clamped as within a group; the first holds the best."""
    p = wanted.softmax(0).clamp(1 / (2 * len(wanted)), 2 / len(wanted))
    found = torch.multinomial(p.expand(sets, -1), count, generator=generator)
    found[0] = wanted.topk(count).indices
    return found
