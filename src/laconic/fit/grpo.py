"""Group-relative policy optimisation (GRPO) of a model that thinks: answers are drawn, judged, and made likelier or less so.

One update for every batch of answers: arXiv 2402.03300 without its reference model and KL term, clipped as in 2503.14476.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from transformers import PreTrainedModel

from laconic.fit.chains import Solution, Solutions
from laconic.fit.contract import TrainingFit
from laconic.fit.thinker import Thinker
from laconic.tasks.reasoning.chains import answer_in


def advantages(rewards: Tensor) -> Tensor:
    """Rewards of groups, [Q, G] -> how much better than its group each is, in deviations; 0 where all are equal."""
    spread = rewards.std(1, correction=0, keepdim=True)
    return torch.where(spread > 1e-6, (rewards - rewards.mean(1, keepdim=True)) / spread.clamp(min=1e-6), 0.0)


def surrogate(
    new: Tensor,
    old: Tensor,
    advantage: Tensor,
    real: Tensor,
    low: float = 0.2,
    high: float = 0.28,
    mean: Literal["answers", "tokens"] = "answers",
) -> Tensor:
    """The clipped loss, a scalar.

    Args:
        new, old: log-probabilities of the drawn tokens, under the model and under that which drew them, [N, n].
        advantage: [N]. `real`: tokens that were drawn, not padding, [N, n].
        low, high: the ratio is clipped to ``[1 - low, 1 + high]``.
        mean: over the tokens of each answer, then over answers; or over all tokens.
    """
    ratio = (new - old).exp()
    gain = advantage[:, None]
    worth = torch.minimum(ratio * gain, ratio.clamp(1 - low, 1 + high) * gain) * real
    if mean == "tokens":
        return -worth.sum() / real.sum()
    return -(worth.sum(1) / real.sum(1).clamp(min=1)).mean()


@dataclass(frozen=True)
class Rollouts:
    """Answers that were drawn, G for each of Q prompts.

    Attributes:
        ids: prompts, padded on the left, and what was drawn, [Q * G, P + n]. `mask`: where they are no padding.
        before: P.
        old: log-probabilities of what was drawn, [Q * G, n].
    """

    ids: Tensor
    before: int
    mask: Tensor
    old: Tensor

    @property
    def real(self) -> Tensor:
        """Drawn tokens up to the end of each answer, [Q * G, n]."""
        return self.mask[:, self.before :]

    def answers(self) -> list[list[int]]:
        """The drawn tokens of every answer."""
        return [row[kept.bool()].tolist() for row, kept in zip(self.ids[:, self.before :], self.real, strict=True)]


@torch.no_grad()
def roll_out(
    lm: Any, prompts: Sequence[Sequence[int]], group: int, cap: int, pad: int, temperature: float = 1.0
) -> Rollouts:
    """Draw `group` answers of at most `cap` tokens to every prompt."""
    longest = max(map(len, prompts))
    several = [list(p) for p in prompts for _ in range(group)]
    ids = torch.tensor([[pad] * (longest - len(p)) + p for p in several], device=lm.device)
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in several], device=lm.device)
    out = lm.generate(
        ids,
        attention_mask=mask,
        max_new_tokens=cap,
        do_sample=True,
        temperature=temperature,
        top_k=0,
        top_p=1.0,
        pad_token_id=pad,
        return_dict_in_generate=True,
        output_logits=True,
    )
    new, end = out.sequences[:, longest:], lm.generation_config.eos_token_id
    ended = (new == end).cumsum(1)
    real = (ended - (new == end).long() == 0).long()  # up to the first end, which is drawn, too
    logits = torch.stack(out.logits, 1).float() / temperature
    old = logits.log_softmax(-1).gather(2, new[..., None])[..., 0]
    return Rollouts(out.sequences, longest, torch.cat([mask, real], 1), old)


def log_probabilities(thinker: Thinker, drawn: Rollouts, temperature: float = 1.0) -> Tensor:
    """Of the drawn tokens under the model as it is now, [Q * G, n], with gradients."""
    positions = (drawn.mask.cumsum(1) - 1).clamp(min=0)
    out = thinker.lm(input_ids=drawn.ids, attention_mask=drawn.mask, position_ids=positions, use_cache=False)
    logits = out.logits[:, drawn.before - 1 : -1].float() / temperature
    return logits.log_softmax(-1).gather(2, drawn.ids[:, drawn.before :, None])[..., 0]


@dataclass(kw_only=True)
class PolicyFit(TrainingFit):
    """A model that thinks, trained on its own answers. A subclass may say what they are worth, and how long they may be.

    Args:
        questions, group: in an update, and answers drawn for each.
        longest: most tokens of an answer.
        temperature: at which answers are drawn.
        style: of `laconic.tasks.reasoning.chains.STYLES`; the questions ask for it.
        most_steps: of the problems, which have 2 at least.
        mean: how the loss is averaged, see `surrogate`.
    """

    steps: int = 60
    lr: float = 1e-4
    clip: float | None = 1.0
    log_every: int = 5
    save_every: int = 10
    questions: int = 16
    group: int = 8
    longest: int = 96
    temperature: float = 1.0
    style: str = "verbose"
    most_steps: int = 5
    mean: Literal["answers", "tokens"] = "answers"

    low_clip: ClassVar[float] = 0.2
    high_clip: ClassVar[float] = 0.28

    def build(self, model: PreTrainedModel, tokenizer: Any) -> Thinker:
        self.model, self.tokenizer = model, tokenizer
        self.solutions = Solutions(tokenizer, {self.style: 1.0}, range(2, self.most_steps + 1))
        self.check_cap()
        self.told: list[tuple[float, float]] = []
        self.thinker = Thinker(model)
        return self.thinker

    def check_cap(self) -> None:
        """Refuse caps under which nothing can be right.

        Raises:
            ValueError: an answer is cut off before the shortest chain is over.
        """
        drawn = self.solutions.draw(random.Random(f"lengths-{self.seed}"), 256)
        shortest = min(len(x.thought) + len(x.answer) for x in drawn)
        least = min(self.cap(step) for step in range(self.steps))
        if least < shortest:
            raise ValueError(
                f"{self.method}: answers are cut after {least} tokens, and the shortest chain with its answer has "
                f"{shortest}; give a larger cap."
            )

    def cap(self, step: int) -> int:
        """Most tokens of an answer in `step`."""
        return self.longest

    def worth(self, right: Tensor, lengths: Tensor) -> Tensor:
        """Rewards of groups of answers, [Q, G], from whether they are right [Q, G], 0 or 1, and their tokens [Q, G]."""
        return right

    def batch(self, step: int) -> tuple[list[Solution], int]:
        rng = random.Random(f"{self.method}-{self.seed}-{step}")
        return self.solutions.draw(rng, self.questions), self.cap(step)

    def loss(self, batch: tuple[list[Solution], int]) -> Tensor:
        asked, cap = batch
        prompts, pad = [x.prompt for x in asked], self.tokenizer.pad_token_id
        drawn = roll_out(self.thinker.lm, prompts, self.group, cap, pad, self.temperature)
        shape = (self.questions, self.group)
        right = self.right(asked, drawn).view(shape)
        lengths = drawn.real.sum(1).float().view(shape)
        gain = advantages(self.worth(right, lengths)).flatten()
        self.told.append((float(right.mean()), float(lengths.mean())))
        if not gain.any():
            return gain.sum()
        new = log_probabilities(self.thinker, drawn, self.temperature)
        return surrogate(new, drawn.old, gain, drawn.real, self.low_clip, self.high_clip, self.mean)

    def right(self, asked: Sequence[Solution], drawn: Rollouts) -> Tensor:
        """Whether each drawn answer is right, 1 or 0, [Q * G]; only what was drawn counts."""
        gold = [x.problem.answer for x in asked for _ in range(self.group)]
        said = self.tokenizer.batch_decode(drawn.answers(), skip_special_tokens=True)
        return torch.tensor([float(answer_in(x) == answer) for x, answer in zip(said, gold, strict=True)])

    def progress(self) -> str:
        right, length = (sum(x) / len(x) for x in zip(*self.told, strict=True))
        self.told = []
        return f"right {100 * right:.1f} % tokens {length:.1f}"
