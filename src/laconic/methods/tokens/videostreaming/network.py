"""The network of VideoStreaming: a small causal decoder that reads a video clip by clip (arXiv 2405.16009)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from laconic.artifact import Artifact
from laconic.memory.encoder import Encoder
from laconic.stream.film import TimeToken, followed, picked
from laconic.stream.grids import smaller


def pooled(frames: Tensor, count: int) -> Tensor:
    """Frames [B, T, h, w, D] as averages on a grid of at most `count` cells each, [B, T * p, D]."""
    batch, _, rows, cols, width = frames.shape
    grids = frames.flatten(0, 1).permute(0, 3, 1, 2)
    small = F.adaptive_avg_pool2d(grids, smaller(rows, cols, count))
    return small.flatten(2).mT.reshape(batch, -1, width)


class Streaming(nn.Module):
    """Memories H_k and codes h_k of clips, codes of questions, and what the decoder reads of a memory.

        [0 .. t_(k-1), H_(k-1), t_(k-1) .. t_k, F_k, S_k, indicator] -> g -> H_k at S_k, h_k at the indicator

    S_k are averages of the frames, H_k what g adds to them. F_k sees no S_k, because g is causal.

    Args:
        model: whose first decoder layers g begins as. `layers`: of g.
        summary: P, tokens of a frame in a memory, at most.
        propagate: False: every clip by itself (an ablation).
    """

    def __init__(self, model: PreTrainedModel, layers: int, summary: int, propagate: bool = True):
        super().__init__()
        self.encoder, self.summary, self.propagate = Encoder(model, layers), summary, propagate
        width = int(model.config.get_text_config().hidden_size)
        self.input, self.history, self.out = (nn.Linear(width, width) for _ in range(3))
        self.norm, self.time = nn.LayerNorm(width), TimeToken(width)
        self.mark, self.indicator = nn.Parameter(torch.zeros(width)), nn.Parameter(torch.randn(1, width) * 0.02)
        with torch.no_grad():
            for layer in (self.input, self.history):
                layer.weight.copy_(torch.eye(width))
                layer.bias.zero_()
            self.out.weight.zero_()  # training begins from averages of the frames
            self.out.bias.zero_()

    def span(self, begin: int, end: int, like: Tensor) -> Tensor:
        """The time token of frames `begin` to before `end`, for every row of `like` [B, n, D], [B, 1, D]."""
        return self.time(begin, end).expand(len(like), 1, -1)

    def clip(self, frames: Tensor, first: int = 0, before: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The memory of a clip [B, m, D] and its code [B, D].

        Args:
            frames: [B, T, h, w, D]. `first`: number of its first frame in the video.
            before: memory of the clip before, [B, m', D]; None at the beginning.
        """
        means = pooled(frames, self.summary)
        parts = [self.input(frames.flatten(1, 3)), means + self.mark, self.indicator.expand(len(frames), -1, -1)]
        if before is not None and self.propagate:
            now = self.span(first, first + frames.shape[1], before)
            parts = [self.span(0, first, before), self.history(before), now, *parts]
        read = self.norm(self.encoder(torch.cat(parts, 1)))
        m = means.shape[1]
        return means + self.out(read[:, -m - 1 : -1]), read[:, -1]

    def question(self, latest: Tensor, asks: Tensor, counts: Tensor) -> Tensor:
        """The code of a question [Q, D], read after the newest memory.

        Args:
            latest: H_K, [Q, m, D]. `asks`: embeddings of the question, [Q, L, D], the first ``counts[q]`` of a row.
        """
        rows, at = followed(asks, counts, self.indicator)
        read = self.encoder(torch.cat([self.history(latest), rows], 1))
        return self.norm(picked(read, at + latest.shape[1])[:, 0])

    def placed(self, memory: Tensor, begin: int, end: int) -> Tensor:
        """What the decoder reads of a memory [B, m, D]: its time, then the memory, [B, 1 + m, D]."""
        return torch.cat([self.span(begin, end, memory), memory], 1)


def relevance(question: Tensor, codes: Tensor) -> Tensor:
    """``cos(q, h_k)`` of codes [Q, D] and [Q, K, D], [Q, K]."""
    return F.cosine_similarity(question[:, None], codes, dim=-1)


def load(artifact: Artifact, model: PreTrainedModel) -> Streaming:
    """The trained network, in fp32 and frozen."""
    data = artifact.data
    return artifact.restore(Streaming(model, data["layers"], data["summary"], data["propagate"]))
