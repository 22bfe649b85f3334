"""ApET: keep tokens that a handful of basis tokens cannot reconstruct, merge the others into them (arXiv 2602.19870)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from laconic import checks
from laconic.errors import BudgetError
from laconic.method import register
from laconic.ops.similarity import folded, nearest
from laconic.stream.assemble import assemble, check_protected
from laconic.stream.contract import POLICIES, Cut, Policy, Stream, TokenMethod
from laconic.stream.shares import spread
from laconic.stream.views import vectors

Part = tuple[Tensor, int, Tensor, Callable[[Tensor], Tensor]]
"""Rows of the stream [n], how many may stay, vectors that stand for them [n, C], and how a mixture of these is read."""


@register(
    "apet",
    site="tokens",
    modality="image",
    mechanism="pruning, merging",
    principle="similarity",
    source="arXiv 2602.19870",
    query_aware=False,
    inferred="the first basis token, stage sizes between the published ones, few tokens (K <= M), separate views and images",
)
@dataclass(kw_only=True)
class ApET(TokenMethod):
    """Keep tokens with a large residual over the span of M basis tokens, twice: at the input and in the middle of the LLM.

    S [M, D] are farthest points among the tokens X [N, D]. With W = X S^T (S S^T + eps I)^-1 the residual of token i is
    e_i = ||x_i - (W S)_i||. Of the K largest, the M weakest give their places to the basis; every other token is merged, by
    cosine, into one of those that stay, which becomes their mean.

    Stage 1 treats every view separately, at the encoder's output before the projector (after it where the model merges or
    resamples patches); stage 2, before layer `layer`, treats every image separately and keeps `ratio` of what stage 1 left.
    The budget is the mean over both: with the defaults keep = 64 / 576 is the paper's 96 and 32 tokens. Above 2 / 3, stage 1
    keeps everything.

    Args:
        basis: M. Views that keep K <= M tokens use half of K.
        ratio: tokens after stage 2 over those after stage 1; 1 leaves stage 2 out.
        layer: of stage 2; None: half depth (the paper's 16 of 32 and 14 of 28).
        first: the basis starts at the token nearest to the mean (``"mean"``), or at a random one (as released).
        seed: of the random one.
        ridge: eps. `inner_ridge`: that of stage 2; None: 0.1 where the model merges patches (as released for Qwen2.5-VL),
            else `ridge`.
        blend: weight of the basis token in its place, the rest being the weak token; None: 0.5 where the model merges
            patches (same release), else 1.
        positions: ``"renumber"``: positions are renumbered after each stage (as released for LLaVA; M-RoPE models gather);
            ``"gather"``: tokens keep theirs.
    """

    basis: int = 10
    ratio: float = 1 / 3
    layer: int | None = None
    first: Literal["mean", "random"] = "mean"
    seed: int = 0
    ridge: float = 1e-5
    inner_ridge: float | None = None
    blend: float | None = None
    positions: Policy = "renumber"

    default_keep: ClassVar[float] = 1 / 9

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.at_least(self, "basis", 1)
        if not 0 < self.ratio <= 1:
            raise BudgetError(f"apet: ratio={self.ratio} must be in (0, 1].")
        checks.one_of(self, "first", "mean", "random")
        checks.one_of(self, "positions", *POLICIES)
        if self.ridge <= 0 or (self.inner_ridge is not None and self.inner_ridge <= 0):
            raise ValueError(f"apet: ridge={self.ridge}, inner_ridge={self.inner_ridge} must be above 0.")
        if self.blend is not None:
            checks.between(self, "blend")

    def cuts(self, depth: int) -> Sequence[int]:
        return (0,) if self.ratio == 1 else (0, self._middle(depth))

    def _middle(self, depth: int) -> int:
        layer = depth // 2 if self.layer is None else self.layer
        if not 0 < layer < depth:
            raise ValueError(f"apet: layer={layer} of stage 2 must be in 1 .. {depth - 1}; ratio=1 leaves stage 2 out.")
        return layer

    def stages(self, mean: float, total: int, depth: int) -> tuple[int, int]:
        """Token counts after stage 1 and after stage 2 whose mean over `depth` layers is `mean` of `total`."""
        if self.ratio == 1:
            return (int(mean + 0.5),) * 2
        middle = self._middle(depth)
        first = min(total, int(mean * depth / (middle + self.ratio * (depth - middle)) + 1e-6))
        return first, int(self.mean_after(mean, first, middle, depth) + 0.5)

    def cut(self, stream: Stream) -> Cut | None:
        inner = stream.layer > 0
        merges = stream.visual.family.merges
        ridge = (self.inner_ridge or (0.1 if merges else self.ridge)) if inner else self.ridge
        blend = (0.5 if merges else 1.0) if self.blend is None else self.blend
        kept, values, residual = [], [], torch.full_like(stream.hidden[..., 0], float("nan"), dtype=torch.float)
        merged = torch.arange(residual.shape[1], device=residual.device).repeat(len(residual), 1)
        for row in range(len(residual)):
            parts = self._inner(stream, row) if inner else self._input(stream, row)
            stays, becomes = [stream.images(row)[:0]], [stream.hidden[row, :0]]
            for rows, count, x, read in parts:
                if count == len(rows):
                    stays.append(rows)
                    becomes.append(stream.hidden[row, rows])
                    continue
                must = None if stream.protected is None else stream.protected[row, rows]
                found = compress(x, count, self._basis(x, count), ridge=ridge, blend=blend, must=must)
                stays.append(rows[found.kept])
                becomes.append(read(found.values).to(stream.hidden))
                merged[row, rows], residual[row, rows] = rows[found.to], found.residuals
            kept.append(torch.cat(stays))
            values.append(torch.cat(becomes))
        scores = [residual[row, stream.shown[row]] for row in range(len(residual))]
        return assemble(stream, kept, values, positions=self.positions, merged=merged, scores=scores)

    def _basis(self, x: Tensor, count: int) -> Tensor:
        size = min(self.basis if count > self.basis else max(1, count // 2), len(x))
        first = int((x.float() - x.float().mean(0)).norm(dim=-1).argmin())
        if self.first == "random":
            first = int(torch.randint(len(x), (), generator=torch.Generator().manual_seed(self.seed)))
        return farthest(x, size, first)

    def _input(self, stream: Stream, row: int) -> list[Part]:
        """Stage 1: the views of a batch row."""
        total = len(stream.images(row))
        if not total:
            return []
        mean = self.allowance(total, len(stream.texts(row)), stream.entry_bytes)
        first, stream.memo[row] = self.stages(mean, total, stream.depth)
        views = [span for span in stream.visual.spans if span.row == row and len(span.tokens)]
        sizes = [len(span.tokens) for span in views]
        counts = spread(first, sizes, sizes)
        return [
            (span.tokens.to(stream.place), count, *vectors(stream.visual, span))
            for span, count in zip(views, counts, strict=True)
        ]

    def _inner(self, stream: Stream, row: int) -> list[Part]:
        """Stage 2: the images of a batch row."""
        at = stream.images(row)
        if not len(at):
            return []
        images: dict[tuple[str, int], list[Tensor]] = {}
        for span in stream.visual.spans:
            if span.row == row:
                images.setdefault((span.modality, span.image), []).append(span.tokens)
        rows = [at[torch.isin(stream.place[row, at], torch.cat(tokens).to(at))] for tokens in images.values()]
        sizes = [len(mine) for mine in rows]
        counts = spread(stream.memo[row], sizes, sizes)
        return [(mine, count, stream.hidden[row, mine], lambda x: x) for mine, count in zip(rows, counts, strict=True)]


@dataclass(frozen=True)
class Folded:
    """What is left of N tokens.

    Attributes:
        kept: the K that stay, ascending, [K]. `values`: what they become, [K, D].
        to: the token into which each is merged, its own number where it stays, [N].
        residuals: e, [N].
    """

    kept: Tensor
    values: Tensor
    to: Tensor
    residuals: Tensor


def farthest(x: Tensor, count: int, first: int) -> Tensor:
    """`count` different rows of x [N, D], each the farthest from all before it, beginning with `first`, [count]."""
    x = x.float()
    chosen = [first]
    distance = torch.full_like(x[:, 0], float("inf"))
    for _ in range(count - 1):
        distance = torch.minimum(distance, (x - x[chosen[-1]]).square().sum(-1))
        distance[chosen] = -1  # equal tokens
        chosen.append(int(distance.argmax()))
    return torch.tensor(chosen, device=x.device)


def residuals(x: Tensor, basis: Tensor, ridge: float) -> Tensor:
    """Norm of the part of x [N, D] that lies outside the span of `basis` [M, D], fp32 [N]; solved in fp64, in which the
    ridge matters even beside large features."""
    x, basis = x.double(), basis.double()
    gram = basis @ basis.T + ridge * torch.eye(len(basis), dtype=x.dtype, device=x.device)
    return (x - torch.linalg.solve(gram, basis @ x.T).T @ basis).norm(dim=-1).float()


def compress(
    x: Tensor, count: int, basis: Tensor, *, ridge: float = 1e-5, blend: float = 1.0, must: Tensor | None = None
) -> Folded:
    """x [N, D] as `count` < N vectors, with the tokens `basis` [M] among them.

    Args:
        ridge, blend: see `ApET`. `must`: tokens that stay in any case, apart from what is merged into them, bool [N].

    Raises:
        BudgetError: more tokens must stay than may.
    """
    error = residuals(x, x[basis], ridge)
    protected = 0 if must is None else int(must.sum())
    check_protected(protected, count)
    ranked = error if must is None else error.masked_fill(must, float("inf"))
    order = ranked.sort(descending=True, stable=True).indices
    top, rest = order[:count], order[count:]
    places = min(len(basis), count - max(1, protected))
    targets, weak = top[: count - places], top[count - places :]
    to = nearest(x[rest], x[targets])
    mean, _ = folded(x[targets], x[rest], to)
    new = torch.cat([mean, blend * x[basis[:places]].float() + (1 - blend) * x[weak].float()]).to(x.dtype)
    kept, place = top.sort()
    where = torch.arange(len(x), device=x.device)
    where[rest] = targets[to]
    return Folded(kept, new[place], where, error)
