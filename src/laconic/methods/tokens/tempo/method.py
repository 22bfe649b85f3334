"""Tempo: a small causal decoder reads every segment of a video with the question and writes notes; the likelier a segment
matters, the more of its notes are read (arXiv 2604.08120)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor
from transformers import PreTrainedModel

from laconic import checks
from laconic.artifact import Artifact
from laconic.errors import BudgetError
from laconic.method import register
from laconic.methods.tokens.tempo import network
from laconic.methods.tokens.tempo.film import NotedFilm
from laconic.methods.tokens.tempo.routing import KEPT, Kept
from laconic.stream.clips import FRAMES, Frames, limited
from laconic.stream.contract import Cut, Stream, TokenMethod
from laconic.stream.film import gridded
from laconic.stream.resample import first_rows, resampled


@register(
    "tempo",
    site="tokens",
    modality="video, image",
    mechanism="resampling",
    principle="query",
    source="arXiv 2604.08120",
    query_aware=True,
    training="trained",
    inferred="a copy of the decoder's first layers as small model, which reads visual tokens; the prompt's text as "
    "question; trained rows for yes and no; one token for a time; the decoder is frozen",
)
@dataclass(kw_only=True)
class Tempo(TokenMethod):
    """Notes of every segment of a video, written with the question in view; how many are read depends on relevance.

    With g a small causal decoder, M K learned tokens, q the prompt's text:

        R_i = g([segment_i, q, M])  at M;   s_i = sigmoid(yes - no)  at the last token of q
        k_i from s_i and the budget (`routing.allocate`);   the decoder reads [time_i, R_i[:k_i]] in the order of time

    The first notes are what fewer memory tokens would have given, so any number may be read. Positions are renumbered. An
    image is one segment, of which all notes are read that the budget allows.

    Args:
        least: notes of the least likely segment, at least 1.
        kept: "head", or for comparison "tail" or "random" notes of every segment.
        routed: False: the same number for every segment (for comparison).
        frames: "video", or "images" where the model is given the frames of one video as images.
        limit: tokens that `film` may give, whose videos have no known length; 4096 as published.
        artifact: what `laconic fit tempo` wrote: a file, a shipped name, or a Hub id. None takes the one shipped for these
            weights.

    Raises:
        ArtifactError: none for this model.
        BudgetError: a budget below two tokens a segment, or a segment of fewer tokens than are read of it.
        UnsupportedModelError: frames whose tokens are no grid.
    """

    least: int = 4
    kept: Kept = "head"
    routed: bool = True
    frames: Frames = "video"
    limit: int = 4096
    artifact: str | None = None

    default_keep: ClassVar[float | None] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.whole(self, "least", 1)
        checks.whole(self, "limit", 2)
        checks.one_of(self, "kept", *KEPT)
        checks.one_of(self, "frames", *FRAMES)

    def attach(self, model: PreTrainedModel) -> None:
        if self.neutral:
            return
        artifact = Artifact.find(self.name, model, self.artifact)
        self._net = network.load(artifact, model).to(model.device)
        self._window = int(artifact.data["window"])

    def _film(self, budget: int | None, question: Tensor) -> NotedFilm:
        least = min(self.least, len(self._net.memory))
        return NotedFilm(self._net, self._window, least, budget, question, self.kept, self.routed)

    def film(self, model: PreTrainedModel, question: Tensor) -> NotedFilm:
        """A video that is read as its frames come, see `laconic.stream.long_video`; its budget is limit=.

        Raises:
            BudgetError: a share of tokens, whose number nobody knows yet.
        """
        if not self.budget_from_parameters:
            raise BudgetError(f"tempo: {self.budget}: how long the video will be is not known; give limit=.")
        return self._film(self.limit, question)

    def cut(self, stream: Stream) -> Cut | None:
        return resampled(stream, self.name, partial(self._made, stream))

    def _made(self, stream: Stream, row: int) -> Iterator[tuple[Tensor, Tensor]]:
        """For every segment of a batch row the rows of the stream that carry it, and its time with its notes."""
        question = stream.hidden[row, stream.texts(row)].float()
        for clip, limit in limited(self, stream, row, self.frames):
            film = self._film(limit, question)
            film.add(gridded(stream, row, clip, self.name))
            for notes, begin, end in film.segments():
                rows = first_rows(
                    self.name, clip, begin, end, 1 + len(notes), "fit fewer notes (notes=) or longer segments (window=)"
                )
                yield rows, torch.cat([self._net.time(begin, end)[None], notes])
