"""How each row of a batch chooses its next token: settings, seeds and penalties of its own, whoever shares the batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import LogitsProcessor


@dataclass(frozen=True)
class Sampling:
    """Settings of one row.

    Attributes:
        temperature: 0 takes the likeliest token. `top_p`: of the likeliest tokens that together have this probability.
        seed: the same seed draws the same tokens; None draws others every time.
        frequency_penalty, presence_penalty: taken off a token's logit for every time, and once, that the answer has it.
        logit_bias: added to logits, by token id.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)


class RowSampler(LogitsProcessor):
    """Turns the logits of every row into scores whose largest is the row's choice, so that `generate()` stays greedy.

    A row that samples gets Gumbel noise from a generator of its own: the largest of logit / temperature + noise is a draw
    from the softmax (arXiv 1411.0030, section 2).

    Args:
        rows: settings, one for every row. `prompt`: columns of the batch before the answers begin.

    Attributes:
        logprobs: [B, V], of the latest logits as the model gave them; None unless `keep_logprobs`.
    """

    def __init__(self, rows: Sequence[Sampling], prompt: int, keep_logprobs: bool = False):
        self._rows, self._prompt, self._keep = rows, prompt, keep_logprobs
        self._generators = [_generator(row) for row in rows]
        self.logprobs: Tensor | None = None

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:  # type: ignore[override]
        if self._keep:
            self.logprobs = scores.float().log_softmax(-1)
        answers = input_ids[:, self._prompt :]
        return torch.stack([self._row(i, answers[i], scores[i].float()) for i in range(len(scores))])

    def _row(self, i: int, answer: Tensor, logits: Tensor) -> Tensor:
        """Scores [V] of one row from its logits [V] and what it has answered so far."""
        row = self._rows[i]
        if row.frequency_penalty or row.presence_penalty:
            count = torch.bincount(answer, minlength=len(logits))[: len(logits)].to(logits)
            logits = logits - row.frequency_penalty * count - row.presence_penalty * (count > 0).to(logits)
        if row.logit_bias:
            logits = logits.clone()
            for token, bias in row.logit_bias.items():
                logits[token] += bias
        if row.temperature == 0:
            return logits
        logits = logits / row.temperature
        if row.top_p < 1:
            logits = _nucleus(logits, row.top_p)
        drawn = torch.rand(len(logits), generator=self._generators[i], dtype=torch.float64).clamp_min(1e-300)
        return logits + (-torch.log(-torch.log(drawn))).to(logits)


def _generator(row: Sampling) -> torch.Generator:
    """On the CPU, so that a seed means the same on every device."""
    generator = torch.Generator()
    if row.seed is None:
        generator.seed()
    else:
        generator.manual_seed(row.seed)
    return generator


def _nucleus(logits: Tensor, top_p: float) -> Tensor:
    """Logits [V] without the tokens beyond the smallest set that has `top_p` of the probability; the likeliest stays."""
    ordered, order = logits.sort(descending=True)
    before = ordered.softmax(-1).cumsum(-1) - ordered.softmax(-1)
    dropped = order[before >= top_p]
    return logits.index_fill(0, dropped, float("-inf"))
