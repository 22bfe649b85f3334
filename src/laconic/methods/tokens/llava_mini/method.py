"""LLaVA-Mini: a few decoder layers in front of the decoder fuse the image into the text; the decoder itself reads one visual
token, or a few, per image (arXiv 2501.03895)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from transformers import PreTrainedModel

from laconic.artifact import Artifact
from laconic.errors import BudgetError, UnsupportedModelError
from laconic.method import register
from laconic.methods.tokens.llava_mini import network
from laconic.stream.assemble import assemble
from laconic.stream.contract import Cut, Stream, TokenMethod
from laconic.stream.grids import grid_rows, middles, refuse_protected, views
from laconic.stream.trained_sizes import sized


@register(
    "llava_mini",
    site="tokens",
    modality="image",
    mechanism="fusion, resampling",
    principle="query",
    source="arXiv 2501.03895",
    query_aware=True,
    training="trained",
    inferred="a frozen decoder; pre-fusion begins as a copy of its first layers; one training for several numbers of "
    "tokens; several images as the frames of a video; later turns of a chat are not fused",
)
@dataclass(kw_only=True)
class LlavaMini(TokenMethod):
    """The text of a prompt is replaced by text that has read the image, and C x C tokens of each image stay.

    With H_v [N, D] the projected features of an image, H_q [q, D] the embeddings of the prompt's text and f a few decoder
    layers (causal, copies of the model's first ones, trained):

        H_c = softmax((LN(Q) + PE)(LN(H_v) + PE)^T / sqrt(D)) H_v
        H_q' = the last q rows of f([H_v ; H_q])

    The decoder reads H_q' where the text was and H_c in the image's place, at renumbered positions. Of several images, each
    is fused by itself and the text is their mean. What comes in later passes (answers, further turns) is read as it is. The
    pre-fusion still reads all N tokens: its FLOPs are counted as the method's.

    Args:
        side: C, one of those that the artifact has. None: by the budget, the largest that fits it; without one the smallest.
        artifact: what `laconic fit llava_mini` wrote: a file, a shipped name, or a Hub id. None takes the one shipped for
            these weights.

    Raises:
        ArtifactError: none for this model.
        BudgetError: a budget below the smallest size, or both a budget and side=.
        UnsupportedModelError: a view whose grid of tokens is no square.
    """

    side: int | None = None
    artifact: str | None = None

    default_keep: ClassVar[float | None] = None
    rewrites_text: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.side is not None and not self.budget_from_parameters:
            raise BudgetError(f"llava_mini: {self.budget} and side={self.side}: give one of them.")

    def attach(self, model: PreTrainedModel) -> None:
        if self.neutral:
            return
        artifact = Artifact.find(self.name, model, self.artifact)
        self._net = network.load(artifact, model).to(model.device)
        self._sides = sorted(map(int, artifact.data["sides"]))
        if self.side is not None and self.side not in self._sides:
            raise ValueError(f"llava_mini: side={self.side}: this artifact has {', '.join(map(str, self._sides))}.")

    def cut(self, stream: Stream) -> Cut | None:
        refuse_protected(stream, self.name)
        kept, values, fused = [], [], []
        for row in range(len(stream.hidden)):
            at, text = stream.texts(row), stream.hidden[row, stream.texts(row)].float()
            carriers, soft, read = [at[:0]], [text[:0]], []
            for cells, side in self._sized(stream, row):
                visual = stream.hidden[row, cells.flatten()].float()[None]
                carriers.append(cells[middles(len(cells), side).to(cells)][:, middles(len(cells), side).to(cells)].flatten())
                soft.append(self._net.compressed(visual, side)[0])
                read.append(self._net.fused(visual, text[None])[0])
            kept.append(torch.cat(carriers))
            values.append(torch.cat(soft))
            fused.append((at, torch.stack(read).mean(0) if read else text))
        cut = assemble(stream, kept, values, positions="renumber")
        assert cut.values is not None
        for row, (at, new) in enumerate(fused):
            cut.values[row, torch.isin(cut.keep[row], at)] = new.to(cut.values)
        return cut

    def _sized(self, stream: Stream, row: int) -> list[tuple[Tensor, int]]:
        """The grid of every view of a batch row, rows of the stream [n, n], and the C that it is compressed to."""
        grids = [grid_rows(stream, span) for span in views(stream, row)]
        if wrong := [tuple(grid.shape) for grid in grids if grid.shape[0] != grid.shape[1]]:
            raise UnsupportedModelError(
                f"llava_mini compresses square grids, and a view has {wrong[0][0]} x {wrong[0][1]} visual tokens; use a "
                "method that resamples any grid, such as pool."
            )
        if self.budget_from_parameters:
            return [(grid, self.side or self._sides[0]) for grid in grids]
        sizes = {side: side**2 for side in self._sides}
        chosen = sized(self, stream, row, [grid.numel() for grid in grids], [sizes] * len(grids))
        return list(zip(grids, chosen, strict=True))
