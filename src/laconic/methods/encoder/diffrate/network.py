"""What DiffRate trains: one distribution over counts for pruning and one for merging in every layer, and the encoder in
which nothing is removed, so that a gradient says what a removal costs (arXiv 2305.17997)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from laconic.methods.encoder.diffrate.schedule import Schedule
from laconic.ops.similarity import first_best, unit

EPS = 1e-6


class Proxy(nn.Module):
    """A count as the expectation over candidates c, with learned probabilities p = softmax(z).

    Args:
        most, least: candidates are most, most - granularity ... and least.
        extra: tokens that always stay and are not among the candidates: CLS.
    """

    candidates: Tensor

    def __init__(self, most: int, least: int, granularity: int, extra: int):
        super().__init__()
        steps = [*range(most, least, -granularity), least]
        self.register_buffer("candidates", torch.tensor(steps, dtype=torch.float32), persistent=False)
        self.logits = nn.Parameter(torch.zeros(len(steps)))
        self.extra = extra

    def count(self) -> Tensor:
        """k = ceil(sum c_j p_j) + extra, whose gradient is that of the sum."""
        mean = (self.candidates * self.logits.softmax(-1)).sum()
        return (mean.ceil() - mean).detach() + mean + self.extra

    def keeping(self, ranks: Tensor) -> Tensor:
        """Probability that a token of each rank stays, 0 being the first: that of all candidates with more tokens."""
        stays = self.candidates + self.extra > ranks[..., None]
        return (stays * self.logits.softmax(-1)).sum(-1)

    def mask(self, ranks: Tensor, upper: int) -> Tensor:
        """1, and 0 for ranks in [k, upper), with the gradient of the probability that they stay."""
        gone = (ranks >= int(self.count())) & (ranks < upper)
        soft = self.keeping(ranks)
        return (~gone).to(soft) - soft.detach() + soft


class Proxies(nn.Module):
    """The proxies of all layers but the first, which never removes anything; the last one leaves exactly `left` patches."""

    def __init__(self, patches: int, left: int, layers: int, granularity: int, cls: int):
        super().__init__()
        self.patches, self.left, self.layers, self.cls = patches, left, layers, cls
        self.prune = nn.ModuleList(Proxy(patches, left, granularity, cls) for _ in range(layers - 1))
        self.merge = nn.ModuleList(Proxy(patches, left, granularity, cls) for _ in range(layers - 2))

    def of(self, layer: int) -> tuple[Any, Any]:
        """(prune, merge) of a layer; None where it has no choice."""
        merges = 0 < layer < self.layers - 1
        return self.prune[layer - 1] if layer else None, self.merge[layer - 1] if merges else None

    def counts(self, layer: int) -> tuple[Tensor, Tensor]:
        """Tokens after pruning and after merging, CLS included."""
        prune, merge = self.of(layer)
        everything = torch.tensor(float(self.patches + self.cls))
        last = torch.tensor(float(self.left + self.cls)) if layer == self.layers - 1 else everything
        return everything if prune is None else prune.count(), last if merge is None else merge.count()

    @torch.no_grad()
    def schedule(self) -> Schedule:
        """The counts as whole numbers."""
        both = [self.counts(layer) for layer in range(self.layers)]
        return Schedule(tuple(int(p) for p, _ in both), tuple(int(m) for _, m in both))

    def macs(self, width: int, inner: int) -> Tensor:
        """Multiply-adds of the layers. The gradient of the smallest count goes to both proxies of its layer."""
        tokens = torch.tensor(float(self.patches + self.cls))
        total = tokens.new_zeros(())
        for layer in range(self.layers):
            total = total + 4 * tokens * width**2 + 2 * tokens**2 * width
            p, m = self.counts(layer)
            smallest = torch.stack([tokens, p, m]).min().detach()
            tokens = smallest + (p - p.detach()) + (m - m.detach())
            total = total + 2 * tokens * width * inner
        return total


@dataclass
class Soft:
    """Tokens of B views, none of which is ever removed.

    Attributes:
        x: [B, T, C]. size: of merged tokens, [B, T]. mask: 1, or 0 for those that are gone, [B, T].
    """

    x: Tensor
    size: Tensor
    mask: Tensor

    @property
    def active(self) -> int:
        """How many are left, the same in every view."""
        return int(self.mask[0].round().sum())


def attention(layer: Any, soft: Soft) -> tuple[Tensor, Tensor]:
    """What a layer's attention adds to the stream [B, T, C], and its weights [B, H, T, T].

    With e the exponentials of the logits: a_ij = (e_ij p_ij + eps / T) / (sum_j e_ij p_ij + eps), p_ij = m_j, and 1 on the
    diagonal, so that a token that is gone still attends to itself.
    """
    module, h = layer.self_attn, layer.layer_norm1(soft.x)
    q, k, v = (
        f(h).unflatten(-1, (module.num_heads, -1)).transpose(1, 2) for f in (module.q_proj, module.k_proj, module.v_proj)
    )
    logits = q @ k.mT * module.scale + soft.size.log()[:, None, None]
    e = (logits - logits.amax(-1, keepdim=True)).exp()
    tokens = e.shape[-1]
    eye = torch.eye(tokens, device=e.device)
    seen = e * (soft.mask[:, None, :] + (1 - soft.mask[:, None, :]) * eye)[:, None]
    weights = (seen + EPS / tokens) / (seen.sum(-1, keepdim=True) + EPS)
    return module.out_proj((weights @ v).transpose(1, 2).flatten(2)), weights


def ranks(weights: Tensor, mask: Tensor, cls: bool) -> Tensor:
    """Rank of every token by importance, [B, T]: CLS first, tokens that are gone last."""
    there = mask.detach().round() > 0
    if cls:
        received = weights[:, :, 0].mean(1)
    else:
        rows = there.to(weights)[:, None, :, None]
        received = (weights * rows).sum(2).mean(1) / there.sum(-1, keepdim=True)
    received = received.detach().masked_fill(~there, float("-inf"))
    if cls:
        received[:, 0] = float("inf")
    return received.sort(dim=-1, descending=True, stable=True).indices.argsort(-1)


def layer_step(layer: Any, soft: Soft, proxies: tuple[Any, Any], counts: tuple[int, int], cls: bool) -> Soft:
    """One layer: attention, masks instead of removals, merging into tokens that stay, the MLP.

    Args:
        proxies: (prune, merge); None leaves masks without a gradient. counts: tokens after each.
    """
    added, weights = attention(layer, soft)
    x, size, mask, active = soft.x + added, soft.size, soft.mask, soft.active
    rank = ranks(weights, mask, cls)
    pruned, left = min(active, counts[0]), min(active, *counts)
    if pruned < active:
        mask = mask * _mask(proxies[0], rank, pruned, active)
    if left < pruned:
        x, size = merged(x, size, rank, pruned, left, cls)
        mask = mask * _mask(proxies[1], rank, left, pruned)
    return Soft(x + layer.mlp(layer.layer_norm2(x)), size, mask)


def _mask(proxy: Any, rank: Tensor, count: int, upper: int) -> Tensor:
    return ((rank < count) | (rank >= upper)).float() if proxy is None else proxy.mask(rank, upper)


def merged(x: Tensor, size: Tensor, rank: Tensor, pruned: int, left: int, cls: bool) -> tuple[Tensor, Tensor]:
    """Ranks left .. pruned - 1 merged into the most similar of the first `left`: values [B, T, C] and sizes [B, T]. The
    sources stay as they are; masks hide them."""
    order = rank.argsort(-1)
    source, target = order[:, left:pruned], order[:, :left]
    metric = unit(x.detach())
    similar = metric.gather(1, _wide(source, x)) @ metric.gather(1, _wide(target, x)).mT
    if cls:
        similar[..., 0] = float("-inf")
    to = target.gather(1, first_best(similar))
    values = x.scatter_reduce(1, _wide(to, x), x.gather(1, _wide(source, x)), "mean")
    sizes = size.scatter_add(1, to, size.gather(1, source) * similar.amax(-1)).clamp(min=1)
    return values, sizes


def _wide(at: Tensor, x: Tensor) -> Tensor:
    """Token numbers [B, k] as an index into x [B, T, C], [B, k, C]."""
    return at[..., None].expand(-1, -1, x.shape[-1])
