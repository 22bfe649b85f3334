"""CoLaR's second stage: GRPO over drawn vectors and drawn words (arXiv 2505.16552, section 3.3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache

from laconic.families import family_of
from laconic.fit.grpo import surrogate
from laconic.methods.reasoning.colar.network import drawn, log_density
from laconic.methods.reasoning.colar.thinker import LatentThinker

CLIP = 0.2
"""Ratios are clipped to within this of 1."""


@dataclass(eq=False)
class Rollout:
    """What was drawn after one prompt.

    Attributes:
        prompt: token ids, the opening with the speed included.
        vectors: the steps of thinking, [d] each, in units of the embeddings' deviation.
        answer: token ids from the mark on; empty where the thinking did not end.
        densities: log-densities of the vectors, averaged over their numbers. `likely`: log-probabilities of the answer.
    """

    prompt: list[int]
    vectors: list[Tensor] = field(default_factory=list)
    answer: list[int] = field(default_factory=list)
    densities: list[Tensor] = field(default_factory=list)
    likely: list[Tensor] = field(default_factory=list)


@torch.no_grad()
def roll_out(
    thinker: LatentThinker, prompts: Sequence[list[int]], mark: int, end: int, most: int, longest: int
) -> list[Rollout]:
    """Think and answer once after every prompt, at temperature 1, as the method does in a session.

    Args:
        mark, end: tokens with which the answer begins and ends. `most`: steps of thinking after which a row is given up.
        longest: most tokens of an answer, its mark and its end included.
    """
    rows = [Rollout(list(p)) for p in prompts]
    ids = [torch.tensor(p, device=thinker.lm.device) for p in prompts]
    real = pad_sequence([torch.ones_like(x) for x in ids], batch_first=True, padding_side="left")
    x = thinker.embedded(pad_sequence(ids, batch_first=True, padding_side="left"))
    stack: Any = family_of(thinker.lm).stack(thinker.lm)
    cache, going = DynamicCache(config=thinker.lm.config), set(rows)
    while going:
        places = (real.cumsum(1) - 1).clamp(min=0)[:, -x.shape[1] :]
        out = stack(inputs_embeds=x, attention_mask=real, position_ids=places, past_key_values=cache, use_cache=True)
        hidden = out.last_hidden_state[:, -1]
        mean, log_std = thinker.latent_head(hidden)
        vectors, scores = drawn(mean, log_std), thinker.logits(hidden).log_softmax(-1)
        densities, tokens = log_density(vectors, mean, log_std), torch.multinomial(scores.exp(), 1)[:, 0]
        x = vectors * thinker.deviation
        for i, row in enumerate(rows):
            if row not in going:
                continue
            token = int(tokens[i])
            if row.answer or (row.vectors and token == mark):
                row.answer.append(token)
                row.likely.append(scores[i, token])
                x[i] = thinker.embedded(tokens[i])
                ended = token == end or len(row.answer) == longest
            else:
                row.vectors.append(vectors[i])
                row.densities.append(densities[i])
                ended = len(row.vectors) == most
            if ended:
                going.remove(row)
        x, real = x[:, None], F.pad(real, (0, 1), value=1)
    return rows


def log_probabilities(thinker: LatentThinker, rows: Sequence[Rollout]) -> tuple[Tensor, Tensor]:
    """Log-densities of the vectors and log-probabilities of the words that were drawn, under the thinker as it is now, with
    gradients: [B, n] each, 0 after the end of a row."""
    sequences = []
    for row in rows:
        words = thinker.embedded(torch.tensor(row.prompt + row.answer[:-1], device=thinker.lm.device))
        before, after = words.split([len(row.prompt), len(words) - len(row.prompt)])
        sequences.append(torch.cat([before, torch.stack(row.vectors) * thinker.deviation, after]))
    densities, likely = [], []
    for row, states in zip(rows, thinker.states(pad_sequence(sequences, batch_first=True)), strict=True):
        first, steps = len(row.prompt) - 1, len(row.vectors)
        mean, log_std = thinker.latent_head(states[first : first + steps])
        densities.append(log_density(torch.stack(row.vectors), mean, log_std))
        scores = thinker.logits(states[first + steps : first + steps + len(row.answer)]).log_softmax(-1)
        answer = torch.tensor(row.answer, device=scores.device, dtype=torch.long)
        likely.append(scores.gather(1, answer[:, None])[:, 0])
    return pad_sequence(densities, batch_first=True), pad_sequence(likely, batch_first=True)


def policy_loss(thinker: LatentThinker, rows: Sequence[Rollout], advantage: Tensor) -> Tensor:
    """The clipped loss of the vectors plus that of the words, each averaged over a row's steps and then over rows.

    Args:
        advantage: of each row, [B].
    """
    total = advantage.new_zeros(())
    drawn_with = [row.densities for row in rows], [row.likely for row in rows]
    for new, told in zip(log_probabilities(thinker, rows), drawn_with, strict=True):
        old = pad_sequence([torch.stack(x) if x else advantage.new_zeros(0) for x in told], batch_first=True)
        real = pad_sequence([advantage.new_ones(len(x)) for x in told], batch_first=True)
        total = total + surrogate(new, old, advantage, real, CLIP, CLIP)
    return total
