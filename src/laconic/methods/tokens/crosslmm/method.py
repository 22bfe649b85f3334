"""CrossLMM: the decoder reads a few pooled tokens of each image, and in some of its layers these and the text look at all of
them (arXiv 2505.17020)."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

from laconic.artifact import Artifact
from laconic.errors import BudgetError
from laconic.method import register
from laconic.methods.tokens.crosslmm import network
from laconic.methods.tokens.crosslmm.network import Side
from laconic.methods.tokens.crosslmm.side import SideSeam
from laconic.seams import Seam
from laconic.stream.assemble import assemble
from laconic.stream.contract import Cut, Stream, TokenMethod
from laconic.stream.grids import averaged, grid_rows, middles, refuse_protected, views
from laconic.stream.readout import single_patches
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
            larger than those of the training.
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
        refuse_protected(stream, self.name)
        kept, values, memory = [], [], []
        for row in range(len(stream.hidden)):
            carriers, soft, every = (
                [stream.images(row)[:0]],
                [stream.hidden[row, :0].float()],
                [stream.hidden[row, :0].float()],
            )
            spans = views(stream, row)
            grids = [grid_rows(stream, span) for span in spans]
            for span, grid, side in zip(spans, grids, self._sized(stream, row, grids), strict=True):
                refuse_larger(self.name, grid, self._most)
                tokens = self.net.readout(single_patches(stream, span, self.name))
                across, down = (middles(n, side).to(grid) for n in grid.shape)
                carriers.append(grid[across][:, down].flatten())
                soft.append(averaged(tokens, side, side))
                every.append(tokens.flatten(0, 1))
            kept.append(torch.cat(carriers))
            values.append(torch.cat(soft))
            memory.append(torch.cat(every))
        counts = torch.tensor([len(x) for x in memory])
        valid = torch.arange(int(counts.max())) < counts[:, None]
        self.here.memory = pad_sequence(memory, batch_first=True), valid.to(stream.hidden.device)
        return assemble(stream, kept, values, positions="renumber")

    def _sized(self, stream: Stream, row: int, grids: list[Tensor]) -> list[int]:
        """G for every view of a batch row."""
        if self.budget_from_parameters:
            return [self.side or self._sides[0]] * len(grids)
        sizes = {side: side**2 for side in self._sides}
        return sized(self, stream, row, [grid.numel() for grid in grids], [sizes] * len(grids))
