"""Measuring for RazorAttention: which KV heads copy from far back, seen on repeated tokens (arXiv 2407.15891, A)."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from transformers import PreTrainedModel

from laconic.cache.heads import shape
from laconic.cache.observe import Observation
from laconic.families import family_of
from laconic.fit.contract import Fit
from laconic.fit.layer_probe import LayerProbe
from laconic.ops.attend import attention_rows
from laconic.session import compress
from laconic.tasks.text.corpus import lines

_SCORES = 1 << 24  # numbers of one block of attention rows


@dataclass(kw_only=True)
class RazorAttentionFit(Fit):
    """One pass over tokens that are repeated.

    Args:
        tokens: tokens before they repeat (2,500, but at most half of the model's positions for all repeats).
        repeats: how often they occur (4).
        material: ``"random"`` tokens, as published, or ``"prose"``, random lines of Python's documentation, for a model
            that hardly copies what does not look like text (`testbed/lm`).
    """

    tokens: int | None = None
    repeats: int = 4
    material: str = "random"

    method: ClassVar[str] = "razorattention"

    def facts(self) -> dict[str, Any]:
        model, tokenizer = self.model, self.tokenizer
        ids, start = self._sequence(model, tokenizer)
        period = (ids.shape[1] - start) // self.repeats
        layers, heads, kv_heads = shape(model)
        echo, induction = torch.zeros(layers, heads), torch.zeros(layers, heads)

        def look(obs: Observation) -> None:
            for first, rows in _blocks(obs):
                for scores, shift in ((echo, 0), (induction, 1)):
                    scores[obs.layer] += copies(rows, first, period, start, shift).cpu()

        with torch.inference_mode(), compress(model, LayerProbe(prefill=look)):
            model(input_ids=ids.to(model.device), logits_to_keep=1)
        queries = ids.shape[1] - start - period
        by_group = [(x / queries).view(layers, kv_heads, -1).amax(-1) for x in (echo, induction)]
        rounded = [[[round(score, 5) for score in row] for row in x.tolist()] for x in by_group]
        self.note(f"{ids.shape[1]} tokens read; the best induction score is {float(by_group[1].max()):.3f}")
        return {"induction": rounded[1], "echo": rounded[0], "period": period}

    def _sequence(self, model: PreTrainedModel, tokenizer: Any) -> tuple[torch.Tensor, int]:
        """ids [1, repeats * period], after a BOS where the tokenizer has one, and where the random tokens begin."""
        if self.repeats < 2:
            raise ValueError("razorattention: repeats=1 shows no copy; repeat at least twice.")
        config = family_of(model).stack(model).config
        longest = int(getattr(config, "max_position_embeddings", None) or 10_000)
        period = self.tokens or min(2500, longest // (2 * self.repeats))
        if period * self.repeats + 1 > longest:
            raise ValueError(
                f"razorattention: {self.repeats} x {period} tokens do not fit the model's {longest} positions; lower tokens="
            )
        ids = torch.tensor(self._drawn(tokenizer, period)).repeat(self.repeats)
        bos = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
        return torch.cat([torch.tensor(bos, dtype=torch.long), ids])[None], len(bos)

    def _drawn(self, tokenizer: Any, period: int) -> list[int]:
        """`period` token ids."""
        rng = random.Random(f"calibration-{self.seed}")
        if self.material == "random":
            plain = sorted(set(range(len(tokenizer))) - set(tokenizer.all_special_ids))
            return rng.choices(plain, k=period)
        if self.material != "prose":
            raise ValueError(f"razorattention: material={self.material!r}: choose 'random' or 'prose'.")
        ids: list[int] = []
        while len(ids) < period:
            ids += tokenizer.encode(rng.choice(lines()) + "\n", add_special_tokens=False)
        return ids[:period]


def _blocks(obs: Observation) -> Iterator[tuple[int, torch.Tensor]]:
    """The causal attention of a pass in blocks of queries: (first query, rows [H, w, n])."""
    heads, n = obs.queries.shape[1], obs.keys.shape[2]
    size = max(1, min(256, _SCORES // (heads * n)))
    for first in range(0, n, size):
        stop = min(n, first + size)
        keys = obs.keys[:, :, :stop]
        rows = attention_rows(obs.queries[:, :, first:stop], keys, obs.scale, softcap=obs.softcap)
        yield first, rows[0].flatten(0, 1)


def copies(rows: torch.Tensor, first: int, period: int, start: int = 0, shift: int = 0) -> torch.Tensor:
    """Attention on earlier copies of the query's token (shift 0: echo) or on what followed them (1: induction).

    Args:
        rows: [H, w, n], of the queries ``first, first + 1, ...``.
        period: distance of two copies; `start`: where the first one begins (tokens before it have no copies).

    Returns:
        the sum over the rows' queries that have an earlier copy, [H].
    """
    total = rows.new_zeros(rows.shape[0])
    query = torch.arange(first, first + rows.shape[1], device=rows.device)
    for back in range(1, (first + rows.shape[1]) // period + 1):
        column = query - back * period
        there = column >= start
        picked = rows[:, there.nonzero()[:, 0], (column + shift)[there]]
        total += picked.sum(-1)
    return total


def scope(
    query: torch.Tensor, key: torch.Tensor, gain: torch.Tensor, offset: torch.Tensor, slope: float, eps: float = 1e-3
) -> float:
    """How far a head of an ALiBi model can look: beyond it every key's weight is below `eps` (arXiv 2407.15891, theorem 1).

    ``L = (2 ||W_Q W_K^T||_2 (||gain||^2 + ||offset||^2) - log eps) / slope``. No ALiBi model fits laconic's seams yet.

    Args:
        query, key: the head's projections, [hidden, D], scaled so that a logit is their plain product.
        gain, offset: weight and bias of the layer norm before the attention, [hidden].
        slope: the head's ALiBi slope.
    """
    norm = torch.linalg.matrix_norm(query.double() @ key.double().T, 2)
    bound = 2 * norm * (gain.double().square().sum() + offset.double().square().sum())
    return float((bound - torch.tensor(eps, dtype=torch.float64).log()) / slope)
