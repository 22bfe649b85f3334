"""SpeechPrune: tokens of sound that fit the question, then those that a layer of signs attends to (arXiv 2412.12009)."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import Any, ClassVar

import torch
from torch import Tensor

from laconic import checks
from laconic.errors import UnsupportedModelError
from laconic.method import register
from laconic.ops.select import best
from laconic.ops.similarity import cosine
from laconic.speech.contract import AudioMethod, Clip, Reduced
from laconic.stream.assemble import choose


@register(
    "speechprune",
    site="tokens",
    modality="audio",
    mechanism="pruning",
    principle="query, attention",
    source="arXiv 2412.12009",
    query_aware=True,
    inferred="how many the first phase leaves; the remainder of its floors; repeated KV heads; which words are the question",
)
@dataclass(kw_only=True)
class SpeechPrune(AudioMethod):
    """Keep what the question is about: two phases at the input of the language model, without training.

    It is not for transcription, where every word counts (`audio_pool` is).

    Phase 1: a token's relevance is the sum of its cosines with the question's embeddings. Frames of a second share the first
    budget by a softmax over their sums, and each keeps its most relevant tokens. Phase 2: queries and keys of the first
    decoder layer from signs alone, of tokens and of weights, without positions; what receives the most attention stays.

    Args:
        first: N1, tokens that the first phase leaves (750 as published, of about 2,200); None: the geometric mean of all and
            what is to stay, so that both phases remove the same share.
        frame: of the first phase, in seconds.
        silence, strip, proportional: see `AudioMethod`.
    """

    first: int | None = None
    frame: float = 1.0

    asks: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.first is not None:
            checks.whole(self, "first", 1)
        if self.frame <= 0:
            raise ValueError(f"speechprune: frame={self.frame} must be a positive number of seconds.")

    def reduce(self, clip: Clip) -> Reduced:
        assert clip.count is not None
        if clip.question is None or not len(clip.question):
            raise ValueError("speechprune: the prompt has no words beside the sound; ask something, or use audio_pool.")
        n, count = len(clip), min(clip.count, len(clip))
        left = min(n, max(count, self.first or round(sqrt(n * count))))
        relevance = cosine(clip.tokens, clip.question).sum(-1)
        frames = torch.arange(n, device=relevance.device) // max(1, round(self.frame / clip.seconds))
        rows = (relevant(relevance, frames, left) | clip.must).nonzero()[:, 0]
        scores = attention_received(clip.tokens[rows], clip.block)
        kept = rows[choose(scores, count, clip.must[rows])]
        ranked = torch.full_like(relevance, float("nan"))
        ranked[rows] = scores
        return Reduced.keeping(kept, n, ranked)


def relevant(relevance: Tensor, frames: Tensor, left: int) -> Tensor:
    """The first phase: which `left` of n tokens stay, bool [n].

    Args:
        relevance: a_u, [n]. `frames`: the frame of each token, ascending from 0, [n].
    """
    total = relevance.new_zeros(int(frames[-1]) + 1)
    share = total.index_add(0, frames, relevance).softmax(0)
    sizes = torch.bincount(frames)
    stays = torch.zeros(len(relevance), dtype=torch.bool, device=relevance.device)
    for frame, count in enumerate(shared(share.tolist(), sizes.tolist(), left)):
        inside = (frames == frame).nonzero()[:, 0]
        stays[inside] = best(relevance[inside][None], count)[0]
    return stays


def shared(share: list[float], most: list[int], total: int) -> list[int]:
    """`total` in proportion to `share`, floors that are at most `most`; what is left goes round, one each by falling
    fraction, to those that have room, until nothing is left."""
    exact = [total * one for one in share]
    counts = [min(int(want), top) for want, top in zip(exact, most, strict=True)]
    order = sorted(range(len(share)), key=lambda i: (int(exact[i]) - exact[i], i))
    left = min(total, sum(most)) - sum(counts)
    while left:
        for i in order:
            if left and counts[i] < most[i]:
                counts[i] += 1
                left -= 1
    return counts


def attention_received(x: Tensor, block: Any) -> Tensor:
    """The second phase: mean attention that each of x [n, D] receives from all of them, [n], fp32, with queries and keys of
    a decoder layer made from signs; a zero counts as positive.

    Raises:
        UnsupportedModelError: the layer has no projections of its own for queries and keys.
    """
    attention: Any = getattr(block, "self_attn", None)
    if not all(isinstance(getattr(attention, name, None), torch.nn.Linear) for name in ("q_proj", "k_proj")):
        raise UnsupportedModelError(
            "speechprune reads self_attn.q_proj and k_proj of the first decoder layer as matrices, and "
            f"{type(block).__name__} has none; use a method that does not, such as audio_pool."
        )
    signs = signed(x)
    queries, keys = (signs @ signed(getattr(attention, name).weight).T for name in ("q_proj", "k_proj"))
    repeated = queries.shape[-1] // keys.shape[-1]
    keys = keys.unflatten(-1, (-1, attention.head_dim)).repeat_interleave(repeated, 1).flatten(1)
    return (queries @ keys.T / sqrt(keys.shape[-1])).softmax(-1).mean(0)


def signed(x: Tensor) -> Tensor:
    """1 where x is not negative, else -1, fp32."""
    return torch.where(x >= 0, 1.0, -1.0)
