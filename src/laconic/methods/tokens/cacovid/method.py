"""CaCoVID: a small policy, trained by whether the frozen model then answers right, scores tokens and frames before the
decoder (arXiv 2602.01649)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from laconic.artifact import Artifact
from laconic.method import register
from laconic.methods.tokens.cacovid import network
from laconic.methods.tokens.cacovid.selection import selected
from laconic.stream.assemble import assemble
from laconic.stream.contract import Cut, Stream, TokenMethod
from laconic.stream.equal_budget import tokens_after
from laconic.stream.grids import refuse_protected, views


@register(
    "cacovid",
    site="tokens",
    modality="image, video",
    mechanism="pruning",
    principle="query",
    source="arXiv 2602.01649",
    query_aware=True,
    training="trained",
    inferred="every view of a sequence is a frame, one update for each batch of questions, a rate that does not adapt",
)
@dataclass(kw_only=True)
class CaCoVID(TokenMethod):
    """A policy reads the whole prompt and says of every visual token, and of every frame, how much it wants to keep it.

    With n tokens to stay, ``floor(eta * n)`` are the best-scored ones, shared out among frames by the frames' scores
    (``softmax(3 f / max |f|)``, between half of an even share and 1.5 times it); the others are evenly spaced among all that
    are left. What stays keeps its position.

    Args:
        eta: share of the kept tokens that is chosen by score.
        artifact: what `laconic fit cacovid` wrote: a file, a shipped name, or a Hub id. None takes the one shipped for
            these weights.

    Raises:
        ArtifactError: none for this model.
    """

    eta: float = 0.5
    artifact: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.eta <= 1:
            raise ValueError(f"cacovid: eta={self.eta} must lie between 0 and 1.")

    def attach(self, model: PreTrainedModel) -> None:
        if not self.neutral:
            self._policy = network.load(Artifact.find(self.name, model, self.artifact), model).to(model.device)

    def cut(self, stream: Stream) -> Cut | None:
        refuse_protected(stream, self.name)
        kept, ranked = [], []
        for row in range(len(stream.hidden)):
            at, there = stream.images(row), stream.hidden.new_zeros(0)
            spans = views(stream, row)
            if not spans:
                kept.append(at)
                ranked.append(there)
                continue
            place = torch.full((stream.ids.shape[1],), -1, dtype=torch.long, device=at.device)
            real = torch.arange(stream.hidden.shape[1], device=at.device)
            real = real if stream.valid is None else real[stream.valid[row]]
            place[stream.place[row, real]] = torch.arange(len(real), device=at.device)  # rows of the prompt without padding
            frames = [place[span.tokens.to(at.device)] for span in spans]
            tokens, of_frames = self._policy(stream.hidden[row, real].float()[None], frames)
            scores = network.scores(tokens[0])
            chosen = selected(
                scores.split([len(rows) for rows in frames]),
                network.scores(of_frames[0]),
                tokens_after(self, stream, row),
                self.eta,
            )
            kept.append(real[torch.cat(frames)[chosen]])
            by_row = scores.new_zeros(stream.hidden.shape[1])
            by_row[real[torch.cat(frames)]] = scores
            ranked.append(by_row[at])
        return assemble(stream, kept, positions="gather", scores=ranked)
