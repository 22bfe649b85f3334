"""Training of Coconut: in every stage thoughts replace one more step of the chain (arXiv 2412.06769, section 3)."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache, PreTrainedModel

from laconic.families import family_of
from laconic.fit.chains import IGNORED, Solution, Solutions
from laconic.fit.contract import TrainingFit
from laconic.fit.schedules import warmup_cosine
from laconic.fit.thinker import Thinker

STEP_END = ";"
"""The token after each step of a chain, see `laconic.tasks.reasoning.chains`."""


def after(chain: list[int], end: int, steps: int) -> list[int]:
    """What is left of a chain without its first `steps`, each of which stops at the token `end`."""
    ends = [i for i, token in enumerate(chain) if token == end]
    return chain[ends[steps - 1] + 1 :] if steps <= len(ends) else []


@dataclass(kw_only=True)
class CoconutFit(TrainingFit):
    """Cross-entropy on the words that are left and on the answer; gradients go through all thoughts.

    Args:
        stages: in each, thoughts replace one step more; chains that are longer keep their later steps in words.
        per_step: thoughts in the place of a step (c in the paper).
        batch_size: problems of a step.
        warmup: share of the steps before the peak of the cosine.
    """

    steps: int = 600
    lr: float = 1e-3
    clip: float | None = 1.0
    stages: int = 3
    per_step: int = 1
    batch_size: int = 32
    warmup: float = 0.03

    method: ClassVar[str] = "coconut"

    def build(self, model: PreTrainedModel, tokenizer: Any) -> Thinker:
        self.model, self.tokenizer = model, tokenizer
        self.solutions = Solutions(tokenizer, {"terse": 1.0})
        self.thinker = Thinker(model)
        return self.thinker

    def rate(self, step: int) -> float:
        return warmup_cosine(step, self.steps, self.warmup)

    def stage(self, step: int) -> int:
        """From 1 to `stages`, each for the same number of steps."""
        return 1 + step * self.stages // self.steps

    def batch(self, step: int) -> tuple[list[Solution], int]:
        return self.solutions.draw(random.Random(f"coconut-{self.seed}-{step}"), self.batch_size), self.stage(step)

    def loss(self, batch: tuple[list[Solution], int]) -> Tensor:
        drawn, stage = batch
        end, device = self.tokenizer.convert_tokens_to_ids(STEP_END), self.model.device
        prompts = [torch.tensor(x.prompt, device=device) for x in drawn]
        words = [torch.tensor(after(x.thought, end, stage) + x.answer, device=device) for x in drawn]
        labels = pad_sequence(words, batch_first=True, padding_value=IGNORED)
        hidden = self.read(prompts, labels.clamp(min=0), stage * self.per_step)
        return F.cross_entropy(self.thinker.logits(hidden[labels != IGNORED]), labels[labels != IGNORED])

    def read(self, prompts: list[Tensor], words: Tensor, thoughts: int) -> Tensor:
        """Read prompts, think, and read `words` [B, n]: the hidden states that predict the words, [B, n, d].

        Prompts are padded on the left, so that the thoughts of all rows are made in the same passes.
        """
        ids = pad_sequence(prompts, batch_first=True, padding_side="left")
        real = pad_sequence([torch.ones_like(x) for x in prompts], batch_first=True, padding_side="left")
        real = F.pad(real, (0, thoughts + words.shape[1]), value=1)
        places = (real.cumsum(1) - 1).clamp(min=0)
        lm: Any = self.thinker.lm
        stack: Any = family_of(lm).stack(lm)
        cache, seen = DynamicCache(config=lm.config), 0

        def states(x: Tensor) -> Tensor:
            nonlocal seen
            start, seen = seen, seen + x.shape[1]
            found: Tensor = stack(
                inputs_embeds=x,
                attention_mask=real[:, :seen],
                position_ids=places[:, start:seen],
                past_key_values=cache,
                use_cache=True,
            ).last_hidden_state
            return found

        last = states(self.thinker.embedded(ids))[:, -1:]
        for _ in range(thoughts):
            last = states(last)
        return torch.cat([last, states(self.thinker.embedded(words[:, :-1]))], 1)

    def facts(self) -> dict[str, Any]:
        return {"thoughts": self.stages * self.per_step}
