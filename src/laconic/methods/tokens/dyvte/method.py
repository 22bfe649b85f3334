"""DyVTE: a small network on the text tells, per sample, when all visual tokens may leave the decoder (arXiv 2411.19628)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn
from transformers import PreTrainedModel

from laconic.artifact import Artifact
from laconic.errors import BudgetError
from laconic.method import register
from laconic.methods.tokens.dyvte import network
from laconic.stream.assemble import assemble
from laconic.stream.contract import Cut, Stream, TokenMethod


@register(
    "dyvte",
    site="tokens",
    modality="image",
    mechanism="dynamic exit",
    source="arXiv 2411.19628",
    query_aware=True,
    training="trained",
    inferred="exits per sample of a batch, the threshold and how a budget sets it, questions of one token",
)
@dataclass(kw_only=True)
class DyVTE(TokenMethod):
    """All visual tokens of a sample leave after the layer whose trained gate says that the question has read them.

    The gate reads the question's hidden states: their mean without the last token, and the last token. Positions keep the
    gap. The decision is made in prefill, once per sample. The layer after which tokens leave still runs on them. The method
    composes with those that act on single tokens.

    Args:
        tau: threshold on the gate's probability (0.5, as published). With ``keep=`` instead, the largest threshold that
            reached that share on the training samples: met on average, not by every sample.
        exit_layer: leave after this layer, whatever the gates say; needs no artifact. The last one: never.
        artifact: what `laconic fit dyvte` wrote: a file, a shipped name, or a Hub id. None takes the one shipped for
            these weights.

    Raises:
        ArtifactError: no gates for this model.
        BudgetError: a share that no threshold reached, or a budget in tokens or bytes.
    """

    tau: float | None = None
    exit_layer: int | None = None
    artifact: str | None = None

    default_keep: ClassVar[float | None] = None
    claims: ClassVar[frozenset[str]] = frozenset({"stream.exit"})
    """Does not claim the stream: tokens that leave here may have been pruned or merged before."""
    uneven: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.budget_from_parameters and not self.budget.neutral:
            if self.keep is None:
                raise BudgetError(f"dyvte: {self.budget}: a gate has no such budget; give keep=, tau= or exit_layer=.")
            if self.tau is not None or self.exit_layer is not None:
                raise ValueError(f"dyvte: keep={self.keep}, tau={self.tau}, exit_layer={self.exit_layer}: give one of them.")
        if self.tau is not None and (not 0 <= self.tau <= 1 or self.exit_layer is not None):
            raise ValueError(f"dyvte: tau={self.tau} must lie between 0 and 1, and goes without exit_layer.")
        self._gates: nn.ModuleList | None = None
        self._tau = 0.5 if self.tau is None else self.tau

    def attach(self, model: PreTrainedModel) -> None:
        if self.neutral or self.exit_layer is not None:
            return
        artifact = Artifact.find(self.name, model, self.artifact, "give exit_layer=")
        self._gates = network.load(artifact).to(model.device)
        if self.keep is not None:
            self._tau = self._threshold(self.keep, [(float(tau), float(share)) for tau, share in artifact.data["shares"]])

    def _threshold(self, share: float, shares: list[tuple[float, float]]) -> float:
        """The largest threshold that kept at most this share."""
        within = [tau for tau, mean in shares if mean <= share + 1e-9]
        if not within:
            least = min((mean for _, mean in shares), default=1.0)
            raise BudgetError(f"dyvte: no threshold of these gates comes to keep={share}; the least is {least:.4f}.")
        return max(within)

    def cuts(self, depth: int) -> range:
        if self.exit_layer is None:
            return range(1, depth)
        if not 0 <= self.exit_layer < depth:
            raise ValueError(f"dyvte: exit_layer={self.exit_layer}: this model has layers 0..{depth - 1}.")
        return range(self.exit_layer + 1, min(self.exit_layer + 2, depth))

    def cut(self, stream: Stream) -> Cut | None:
        visual = stream.visual.mask.gather(1, stream.place)  # line ends leave, too
        visual = visual if stream.valid is None else visual & stream.valid
        leaves = [len(stream.images(b)) > 0 and self._exits(stream, b) for b in range(len(visual))]
        if not any(leaves):
            return None
        kept = [visual[b].nonzero()[:, 0][: 0 if leave else None] for b, leave in enumerate(leaves)]
        return assemble(stream, kept, separators=False)

    def _exits(self, stream: Stream, row: int) -> bool:
        """The gate after the layer that ran last says that this sample's visual tokens may leave."""
        if self._gates is None:
            return True  # exit_layer
        text = stream.texts(row)
        question = stream.hidden[row, text[text > stream.images(row)[-1]]]
        gate = self._gates[stream.layer - 1]
        stay, leave = gate(network.question_feature(question)).float()
        return bool(torch.sigmoid(leave - stay) > self._tau)
