"""Explainability-guided compression: a small network guesses from layer 0's attention which visual tokens an explanation
of the answer would name; the rest never enters the LLM (arXiv 2506.01097)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from laconic.artifact import Artifact
from laconic.errors import UnsupportedModelError
from laconic.method import register
from laconic.methods.tokens.explainability import network
from laconic.stream.assemble import assemble, choose
from laconic.stream.contract import Cut, Policy, Stream, TokenMethod
from laconic.stream.lookahead import attention_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@register(
    "explainability",
    site="tokens",
    modality="image",
    mechanism="pruning",
    principle="attention",
    source="arXiv 2506.01097",
    query_aware=True,
    training="trained",
    inferred="kernel, norms and activation of the network, attention divided by its mean, kept tokens keep their positions",
)
@dataclass(kw_only=True)
class Explainability(TokenMethod):
    """Relevance to the answer, guessed before layer 0 by a trained network from what the instruction attends to there.

    All visual tokens of a sequence (images or frames) are one line of numbers: attention of the text after the last
    image to them in layer 0, the mean over its tokens and the heads. The network turns it into relevance; the best
    ``keep * total`` go on.

    Args:
        artifact: what `laconic fit explainability` wrote: a file, a shipped name, or a Hub id. None takes the one shipped
            for these weights.
        positions: ``"gather"``: what stays keeps its positions; ``"renumber"``: they are renumbered.

    Raises:
        ArtifactError: none for this model.
        UnsupportedModelError: no text follows the images.
    """

    artifact: str | None = None
    positions: Policy = "gather"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.positions not in ("gather", "renumber"):
            raise ValueError(f"explainability: positions={self.positions!r}: choose 'gather' or 'renumber'.")

    def attach(self, model: PreTrainedModel) -> None:
        if not self.neutral:
            self._net = network.load(Artifact.find(self.name, model, self.artifact)).to(model.device)

    def cut(self, stream: Stream) -> Cut | None:
        kept, scores = [], []
        for row, attention in enumerate(instruction_attention(stream)):
            at, others = stream.images(row), len(stream.texts(row))
            relevance = self._net(attention[None])[0] if len(at) else attention
            count = max(1, round(self.allowance(len(at), others, stream.entry_bytes)))
            kept.append(at[choose(relevance, count, stream.must(row))] if len(at) else at)
            scores.append(relevance)
        return assemble(stream, kept, positions=self.positions, scores=scores)


def instruction_attention(stream: Stream) -> list[Tensor]:
    """What visual tokens receive from the text after the last image in the layer that runs next, mean over heads and tokens
    of that text, fp32 [v] for every batch row; a row without images has none.

    Raises:
        UnsupportedModelError: no text follows the images of a row, so nothing there can see them.
    """
    asking = [following(stream.images(row), stream.texts(row)) for row in range(len(stream.hidden))]
    rows = torch.full((len(asking), max(len(a) for a in asking)), -1, dtype=torch.long, device=stream.hidden.device)
    for row, at in enumerate(asking):
        rows[row, : len(at)] = at
    if not rows.numel():
        return [stream.hidden.new_zeros(0) for _ in asking]
    paid = attention_of(stream, rows)
    return [
        paid[row, :, : len(at)].mean((0, 1))[stream.images(row)] if len(at) else paid.new_zeros(0)
        for row, at in enumerate(asking)
    ]


def following(images: Tensor, texts: Tensor) -> Tensor:
    """Those of the rows `texts` [t] that come after the last of `images` [v]; none where there are no images.

    Raises:
        UnsupportedModelError: there are images and no such text.
    """
    if not len(images):
        return texts[:0]
    found = texts[texts > images[-1]]
    if not len(found):
        raise UnsupportedModelError(
            "explainability reads what the question attends to, and no text follows the images; put the images first "
            "and the question after them."
        )
    return found
