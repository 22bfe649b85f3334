"""Training of VideoStreaming: the encoder by the answers of the frozen model, and first by which clips a question is about
(arXiv 2405.16009, stage 2)."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel

from laconic.fit.video import Filmed, VideoFit
from laconic.fit.visual import Asked
from laconic.methods.tokens.videostreaming.network import Streaming, relevance
from laconic.methods.tokens.videostreaming.selection import drawn, gumbel
from laconic.ops.rows import gathered


@dataclass(kw_only=True)
class VideoStreamingFit(VideoFit):
    """The streaming encoder, its maps and its indicator.

    Args:
        layers: decoder layers of the encoder, copied from the model's first ones (16 as published).
        length: T, frames of a clip (16 as published). `summary`: P, tokens of a frame in a memory.
        select: V, memories that are read.
        propagate: whether a clip is read after the memory of the one before; False is an ablation.
        temperature: of the choice. `guided`: share of the steps in which the choice is also taught which clips show what is
            asked about; 0: never.
    """

    layers: int = 4
    length: int = 4
    summary: int = 4
    select: int = 2
    propagate: bool = True
    temperature: float = 0.1
    guided: float = 0.4

    method: ClassVar[str] = "videostreaming"
    may_be_zero: ClassVar[tuple[str, ...]] = (*VideoFit.may_be_zero, "guided")

    def __post_init__(self) -> None:
        super().__post_init__()
        if wrong := [n for n in self.frames if n % self.length or n // self.length < self.select]:
            raise ValueError(
                f"videostreaming: frames={wrong[0]} is not divided into clips of length={self.length}, or makes fewer than "
                f"select={self.select} of them."
            )

    def network(self, model: PreTrainedModel) -> Streaming:
        return Streaming(model, self.layers, self.summary, self.propagate)

    def batch(self, step: int) -> tuple[Asked, random.Random]:
        self.guiding = step < self.guided * self.steps
        return super().batch(step)

    def logits(self, asked: Asked, rng: random.Random) -> Tensor:
        """Drawn memories in training; the nearest ones in eval mode."""
        words, each = self.words(asked), len(asked.ids) // len(asked.features)
        memories, codes = self.read(asked.features.float())
        memories, codes = memories.repeat_interleave(each, 0), codes.repeat_interleave(each, 0)
        counts = asked.text.sum(1)
        scores = relevance(self.net.question(memories[:, -1], gathered(words, asked.text), counts), codes)
        self.guide = self.divergence(asked, scores)
        noise = gumbel(scores.shape).to(scores) if self.net.training else None
        weights = drawn(scores, self.select, self.temperature, noise)
        at = (weights > 0.5).nonzero()[:, 1].view(len(scores), self.select)
        placed = self.placed(memories) * weights[..., None, None]
        chosen = placed.gather(1, at[..., None, None].expand(-1, -1, *placed.shape[2:]))
        return self.answered(asked, chosen.flatten(1, 2), words)

    def read(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Memories [I, K, m, D] and codes [I, K, D] of clips [I, T K, h, w, D], one after the other."""
        memories: list[Tensor] = []
        codes = []
        for number, clip in enumerate(frames.split(self.length, 1)):
            memory, code = self.net.clip(clip, number * self.length, memories[-1] if memories else None)
            memories.append(memory)
            codes.append(code)
        return torch.stack(memories, 1), torch.stack(codes, 1)

    def placed(self, memories: Tensor) -> Tensor:
        """Memories [Q, K, m, D] with their times, [Q, K, 1 + m, D]."""
        t = self.length
        return torch.stack([self.net.placed(x, k * t, (k + 1) * t) for k, x in enumerate(memories.unbind(1))], 1)

    def divergence(self, asked: Asked, scores: Tensor) -> Tensor:
        """``KL(uniform over the clips that show what is asked about || softmax(r / tau))``."""
        assert isinstance(asked, Filmed)
        wanted = asked.where.unflatten(1, (-1, self.length)).any(-1).float()
        wanted = wanted / wanted.sum(1, keepdim=True).clamp(min=1)
        return F.kl_div((scores / self.temperature).log_softmax(-1), wanted, reduction="batchmean")

    def loss(self, batch: tuple[Asked, random.Random]) -> Tensor:
        answers = super().loss(batch)
        assert isinstance(answers, Tensor)
        return answers + self.guide if self.guiding else answers

    def facts(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("layers", "length", "summary", "propagate")}
