"""CrossLMM: the decoder reads a few pooled tokens of each image, and in some of its layers these and the text look at all of
them (arXiv 2505.17020)."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

from laconic.artifact import Artifact
from laconic.errors import BudgetError, UnsupportedModelError
from laconic.method import register
from laconic.methods.tokens.crosslmm import network
from laconic.methods.tokens.crosslmm.network import Side
from laconic.methods.tokens.crosslmm.side import SideSeam
from laconic.seams import Seam
from laconic.stream.contract import Cut, Stream, TokenMethod
from laconic.stream.grids import averaged, grid_rows, middles, views
from laconic.stream.readout import single_patches
from laconic.stream.resample import resampled
from laconic.stream.seam import StreamSeam
from laconic.stream.trained_sizes import refuse_larger, sized


class _OfThread(threading.local):
    """What this thread's pass has brought: all visual tokens [B, N, D] with which of them are real [B, N], from the cut to
    the decoder; and what visual rows read of them, by layer."""

    memory: tuple[Tensor, Tensor] | None = None

    def __init__(self) -> None:
        self.sides: dict[int, Side | None] = {}


@register(
    "crosslmm",
    site="tokens",
    modality="image, video",
    mechanism="pooling, cross-attention",
    principle="transformation, query",
    source="arXiv 2505.17020",
    query_aware=True,
    training="trained",
    inferred="a frozen encoder and decoder; adaptive averages; norms before the cross-attention, two gates that begin at 0, "
    "no positions on what is looked at, which layers; one training for several sizes",
)
@dataclass(kw_only=True)
class CrossLMM(TokenMethod):
    """G x G averages of each image go through the decoder; every few layers they and the text look at all of its tokens.

    With V [N, D] the projected features of all images of a prompt, and h what self-attention has left in the layer:

        h_vis += tanh(a_v) CA_v(norm(h_vis), V);   h_text += tanh(a_t) CA_t(norm(h_text), V)

    Both read the same h, before the MLP. CA is unmasked attention without positions, in the host's heads. Generated tokens
    are text: keys and values of V are kept beside the cache for them, and counted (`Stats.kv_bytes`), one set per layer that
    looks. Their number grows with the images; the cost of looking is linear in it. Positions are renumbered.

    Args:
        side: G, one of those that the artifact has. None: by the budget, the largest that fits it; without one the smallest.
        artifact: what `laconic fit crosslmm` wrote: a file, a shipped name, or a Hub id. None takes the one shipped for
            these weights.

    Raises:
        ArtifactError: none for this model.
        BudgetError: a budget below the smallest size, or both a budget and side=.
        UnsupportedModelError: layers of another kind than Llama's, a model that merges patches before the decoder, or a view
            larger than those of the training or smaller than G x G.
    """

    side: int | None = None
    artifact: str | None = None

    default_keep: ClassVar[float | None] = None
    seams: ClassVar[tuple[type[Seam], ...]] = (StreamSeam, SideSeam)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.side is not None and not self.budget_from_parameters:
            raise BudgetError(f"crosslmm: {self.budget} and side={self.side}: give one of them.")
        self.here = _OfThread()

    def attach(self, model: PreTrainedModel) -> None:
        if self.neutral:
            return
        artifact = Artifact.find(self.name, model, self.artifact)
        self.net = network.load(artifact, model).to(model.device)
        self._sides, self._most = sorted(map(int, artifact.data["sides"])), int(artifact.data["side"])
        self._looking = len(self.net.layers) / int(model.config.get_text_config().num_hidden_layers)
        if self.side is not None and self.side not in self._sides:
            raise ValueError(f"crosslmm: side={self.side}: this artifact has {', '.join(map(str, self._sides))}.")

    def allowance(self, total: int, others: int, entry_bytes: int) -> float:
        """Under a budget in bytes, what the text looks at comes first: all visual tokens, in the layers that look."""
        beside = self._looking * total if self.budget.bytes is not None else 0
        return super().allowance(total, others + round(beside), entry_bytes)

    def cut(self, stream: Stream) -> Cut | None:
        every = [[stream.hidden[row, :0].float()] for row in range(len(stream.hidden))]
        cut = resampled(stream, self.name, lambda row: self._made(stream, row, every[row]))
        memory = [torch.cat(tokens) for tokens in every]
        counts = torch.tensor([len(tokens) for tokens in memory])
        valid = torch.arange(int(counts.max())) < counts[:, None]
        self.here.memory = pad_sequence(memory, batch_first=True), valid.to(stream.hidden.device)
        return cut

    def _made(self, stream: Stream, row: int, every: list[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """For every view of a batch row the rows of the stream that carry its averages, those in the middle of each window,
        and the averages; all of its tokens go to the end of `every`."""
        spans = views(stream, row)
        grids = [grid_rows(stream, span) for span in spans]
        for span, grid, side in zip(spans, grids, self._sized(stream, row, grids), strict=True):
            tokens = self.net.readout(single_patches(stream, span, self.name))
            every.append(tokens.flatten(0, 1))
            across, down = (middles(n, side).to(grid) for n in grid.shape)
            yield grid[across][:, down].flatten(), averaged(tokens, side, side)

    def _sized(self, stream: Stream, row: int, grids: list[Tensor]) -> list[int]:
        """G for every view of a batch row.

        Raises:
            UnsupportedModelError: a view larger than those of the training, or of fewer tokens a side than the smallest G.
        """
        sides = self._sides if self.side is None else [self.side]
        counts = []
        for grid in grids:
            refuse_larger(self.name, grid, self._most)
            counts.append({side: side**2 for side in sides if side <= min(grid.shape)})
            if not counts[-1]:
                raise UnsupportedModelError(
                    f"crosslmm: a view has {grid.shape[0]} x {grid.shape[1]} visual tokens, too few for averages on "
                    f"{sides[0]} x {sides[0]}; give a smaller side=, or fit one (sides=)."
                )
        if self.budget_from_parameters:
            return [min(made) for made in counts]
        return sized(self, stream, row, [grid.numel() for grid in grids], counts)
