"""The network of HICom: local tokens, one for each block of patches, and global ones (arXiv 2503.16036)."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from laconic.artifact import Artifact
from laconic.families.vision import vision_family_of
from laconic.stream.readout import readout

Query = Literal["question", "block", "none"]
QUERIES: tuple[str, ...] = get_args(Query)


def groups(size: int, kernel: int) -> Tensor:
    """The ceil(size / kernel) groups of one axis as indices, [groups, length]: all of equal length, none padded; where the
    size does not divide, the later ones begin one earlier, on the last of the group before."""
    count = -(-size // kernel)
    length, longer = -(-size // count), size % count or count
    number = torch.arange(count)
    start = torch.where(number < longer, number * length, longer * length + (number - longer) * (length - 1) - 1)
    return start[:, None] + torch.arange(length)


def blocks(x: Tensor, kernel: tuple[int, int, int]) -> Tensor:
    """x [B, T, H, W, C] in blocks of `kernel` (time, rows, columns), in this order, [B, blocks, patches, C]."""
    t, h, w = (groups(n, k).to(x.device) for n, k in zip(x.shape[1:4], kernel, strict=True))
    x = x[:, t][:, :, :, h][:, :, :, :, :, w]  # [B, nt, kt, nh, kh, nw, kw, C]
    return x.permute(0, 1, 3, 5, 2, 4, 6, 7).flatten(4, 6).flatten(1, 3)


def count(shape: tuple[int, int, int], kernel: tuple[int, int, int]) -> int:
    """Blocks of T x H x W patches."""
    t, h, w = (-(-n // k) for n, k in zip(shape, kernel, strict=True))
    return t * h * w


def axes(shape: tuple[int, int, int], width: int) -> Tensor:
    """The sum of three sin-cos codes over all channels, of time, row and column, [T, H, W, width]."""
    rates = 10000.0 ** -(torch.arange(width // 2, dtype=torch.float32) / (width // 2))
    angles = torch.arange(max(shape), dtype=torch.float32)[:, None] * rates
    code = torch.cat([angles.sin(), angles.cos()], 1)
    t, h, w = shape
    return code[:t, None, None] + code[:h, None] + code[:w]


class Adapter(nn.Module):
    """``(1 - a) x + a LN(MLP(x))``, the scalar a 0 at first: the identity."""

    def __init__(self, width: int):
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width), nn.LayerNorm(width))
        self.share = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = (1 - self.share) * x + self.share * self.mlp(x)
        return out


class Hybrid(nn.Module):
    """Local and global tokens of images or clips, for questions about them.

    Args:
        model: whose projector both readouts begin as.
        learned: global tokens; 0: none.
        query: what pools a block: the "question", the "block"'s own mean (unconditional), or "none": all patches alike.
    """

    def __init__(self, model: PreTrainedModel, learned: int, query: Query):
        super().__init__()
        config = vision_family_of(model).tower(model).config
        width, hidden = int(config.hidden_size), int(model.config.get_text_config().hidden_size)
        self.query = query
        self.asks = nn.Sequential(nn.LayerNorm(hidden), nn.Linear(hidden, width), nn.GELU(), nn.Linear(width, width))
        for weight in self.asks[3].parameters():
            nn.init.zeros_(weight)  # no question prefers a patch at first: training begins from average pooling
        self.keys, self.values = Adapter(width), Adapter(width)
        self.local = readout(model)
        self.learned = None
        if learned:
            self.learned = nn.Parameter(torch.randn(learned, width) * 0.02)
            self.norm = nn.LayerNorm(width)
            self.modulation = nn.Sequential(nn.LayerNorm(hidden), nn.Linear(hidden, 2 * width))
            self.attention = nn.MultiheadAttention(width, int(config.num_attention_heads), batch_first=True)
            self.readout = readout(model)

    def shares(self, patches: Tensor, question: Tensor, kernel: tuple[int, int, int]) -> Tensor:
        """What every block takes of its patches, [B k, blocks, patches]; see `forward`."""
        keys, each = blocks(self.keys(patches), kernel), len(question) // len(patches)
        if self.query == "none":
            logits = keys.new_zeros(keys.shape[:3]).repeat_interleave(each, 0)
        elif self.query == "block":
            logits = torch.einsum("bgnc,bgc->bgn", keys, keys.mean(2)).repeat_interleave(each, 0)
        else:
            asks = self.asks(question).unflatten(0, (len(patches), each))
            logits = torch.einsum("bgnc,bkc->bkgn", keys, asks).flatten(0, 1)
        return (logits * patches.shape[-1] ** -0.5).softmax(-1)

    def whole(self, patches: Tensor, question: Tensor) -> Tensor:
        """Global tokens before their readout, [B k, learned, C]: ``q + attention(q)`` with ``q = LN(L) scale + shift``."""
        assert self.learned is not None
        scale, shift = self.modulation(question)[:, None].chunk(2, -1)
        query = self.norm(self.learned) * (1 + scale) + shift
        every = patches.flatten(1, 3)
        shape = (patches.shape[1], patches.shape[2], patches.shape[3])
        places = axes(shape, patches.shape[-1]).to(patches).flatten(0, 2)
        each = len(question) // len(patches)
        keys, values = ((x).repeat_interleave(each, 0) for x in (every + places, every))
        out: Tensor = query + self.attention(query, keys, values, need_weights=False)[0]
        return out

    def forward(self, patches: Tensor, question: Tensor, kernel: tuple[int, int, int]) -> Tensor:
        """Local tokens in the order of time, row and column, then the global ones, [B k, m, D].

        Args:
            patches: encoder features of B images or clips, [B, T, H, W, C].
            question: a vector for each of k questions about each of them, [B k, D].
            kernel: patches of a block in time, rows and columns.
        """
        shares, each = self.shares(patches, question, kernel), len(question) // len(patches)
        pooled = shares[..., None, :] @ blocks(self.values(patches), kernel).repeat_interleave(each, 0)
        local: Tensor = self.local(pooled[..., 0, :])
        if self.learned is None:
            return local
        return torch.cat([local, self.readout(self.whole(patches, question))], 1)


def load(artifact: Artifact, model: PreTrainedModel) -> Hybrid:
    """The trained network, in fp32 and frozen."""
    return artifact.restore(Hybrid(model, artifact.data["learned"], artifact.data["query"]))
