"""DapQ: pseudo queries at the positions of the tokens that will be generated (arXiv 2603.11564)."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch

from laconic.cache.contract import CacheMethod
from laconic.cache.full_attention import refuse_other_layers
from laconic.cache.observe import Observation
from laconic.cache.scores import pool
from laconic.families import family_of
from laconic.method import register
from laconic.ops.attend import attention_rows

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CONTENTS = ("prefix_suffix", "random_single", "random_span", "fixed")


@register(
    "dapq",
    site="cache",
    mechanism="eviction",
    source="arXiv 2603.11564",
    query_aware=True,
    inferred="mean over the query heads of a KV head; short prompts repeat themselves; random content is drawn from the "
    "prompt; with several chunks or turns pseudo tokens run after each of them",
)
@dataclass(kw_only=True)
class DapQ(CacheMethod):
    """Run N meaningless tokens after the prompt, keep the entries that their queries attend to, forget the tokens.

    A query is dominated by its position, so queries at the positions ``L .. L + N - 1`` predict what the tokens generated
    there will need, whatever those say: ``S(j) = sum_i A[i, j]`` over the pseudo queries i, where A is their softmax over
    the prompt and the pseudo tokens before them. Nothing is forced to stay and nothing is smoothed, as in the equations.
    With a chunked prefill, and in every later turn, they run after each chunk or turn and rank everything stored by then.

    Args:
        n_pseudo: N (32), which is what they add to the prefill in tokens.
        prefix: of ``"prefix_suffix"``: this many first and ``N - prefix`` last tokens of the prompt (4).
        content: ``"prefix_suffix"``; ``"random_single"``, one token of the prompt N times; ``"random_span"``, N tokens
            of the prompt in a row; ``"fixed"``, the `fixed_ids`. A prompt or a list that is too short starts over.
        fixed_ids: token ids of ``"fixed"``.
        position_offset: added to the positions of the pseudo tokens; -N puts them on the last N tokens of the prompt.
        pool_kernel: width of an average pooling of the scores, odd; 0 is none.
        keep_window: newest tokens that always stay, up to half the budget (0).
        reduction: ``"mean"`` or ``"max"`` over the query heads of a KV head.
        seed: of the random contents.
    """

    n_pseudo: int = 32
    prefix: int = 4
    content: Literal["prefix_suffix", "random_single", "random_span", "fixed"] = "prefix_suffix"
    fixed_ids: tuple[int, ...] = ()
    position_offset: int = 0
    pool_kernel: int = 0
    keep_window: int = 0
    reduction: Literal["mean", "max"] = "mean"
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least in (("n_pseudo", 1), ("prefix", 0), ("pool_kernel", 0), ("keep_window", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or value < least:
                raise ValueError(f"dapq: {name}={value!r} must be a whole number of at least {least}.")
        if self.pool_kernel and self.pool_kernel % 2 == 0:
            raise ValueError(f"dapq: pool_kernel={self.pool_kernel} must be odd, or 0 for none.")
        if self.prefix > self.n_pseudo:
            raise ValueError(f"dapq: prefix={self.prefix} is more than n_pseudo={self.n_pseudo}.")
        if self.content not in CONTENTS:
            raise ValueError(f"dapq: content={self.content!r}: choose one of {', '.join(CONTENTS)}.")
        if not isinstance(self.fixed_ids, tuple) or not all(isinstance(i, int) for i in self.fixed_ids):
            raise ValueError(f"dapq: fixed_ids={self.fixed_ids!r} must be a tuple of token ids.")
        if (self.content == "fixed") != bool(self.fixed_ids):
            raise ValueError("dapq: content='fixed' and fixed_ids=(...) go together; give both or neither.")
        if self.reduction not in ("mean", "max"):
            raise ValueError(f"dapq: reduction={self.reduction!r}: choose 'mean' or 'max'.")

    def attach(self, model: PreTrainedModel) -> None:
        """Refuse models that would store pseudo tokens; warn where the premise fails."""
        refuse_other_layers(self.name, model)
        stack = family_of(model).stack(model)
        if 0 in (getattr(stack.config, "no_rope_layers", None) or ()):
            warnings.warn(
                "dapq: some layers of this model have no rotary positions, so its pseudo queries predict little there.",
                stacklevel=3,
            )
        self._embed = model.get_input_embeddings()

    def pseudo_offset(self) -> int:
        return self.position_offset

    def pseudo(self, prompt: torch.Tensor, valid: torch.Tensor | None) -> torch.Tensor:
        if self.content == "fixed":
            ids = torch.tensor([self.fixed_ids[i % len(self.fixed_ids)] for i in range(self.n_pseudo)], device=prompt.device)
            fixed = ids if prompt.ndim == 2 else self._embed(ids)
            return fixed.expand(prompt.shape[0], *fixed.shape)
        length = prompt.shape[1]
        real = [length] * prompt.shape[0] if valid is None else valid.sum(-1).tolist()
        places = [[length - n + place for place in self._places(n)] for n in (max(1, n) for n in real)]
        return prompt[torch.arange(len(real), device=prompt.device)[:, None], torch.tensor(places, device=prompt.device)]

    def _places(self, n: int) -> list[int]:
        """Which of n tokens are repeated as pseudo tokens; the same whatever else is in the batch."""
        count = self.n_pseudo
        if self.content == "prefix_suffix":
            return [i % n for i in range(self.prefix)] + [(n - count + i) % n for i in range(self.prefix, count)]
        draw = float(torch.rand((), generator=torch.Generator().manual_seed(self.seed)))
        if self.content == "random_single":
            return [int(draw * n)] * count
        return [(int(draw * max(1, n - count + 1)) + i) % n for i in range(count)]

    def forced(self) -> tuple[int, int]:
        return 0, self.keep_window

    def score(self, obs: Observation) -> torch.Tensor:
        assert obs.pseudo is not None
        queries, pseudo_keys = obs.pseudo
        keys = torch.cat([obs.keys, pseudo_keys], 2)
        bias = None if obs.bias is None else torch.nn.functional.pad(obs.bias, (0, pseudo_keys.shape[2]))
        rows = attention_rows(queries, keys, obs.scale, bias=bias, softcap=obs.softcap)  # [B, Hkv, G, P, n + P]
        votes = rows[..., : obs.keys.shape[2]].sum(3)
        score = votes.mean(2) if self.reduction == "mean" else votes.amax(2)
        return pool(score, self.pool_kernel, "avg") if self.pool_kernel else score
