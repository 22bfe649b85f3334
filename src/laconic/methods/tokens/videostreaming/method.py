"""VideoStreaming: a small causal decoder writes a memory of every clip, given that of the clip before, and the question
picks which memories the large one reads (arXiv 2405.16009)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from torch import Tensor
from transformers import PreTrainedModel

from laconic import checks
from laconic.artifact import Artifact
from laconic.errors import BudgetError
from laconic.method import register
from laconic.methods.tokens.videostreaming import network
from laconic.methods.tokens.videostreaming.film import StreamedFilm
from laconic.stream.clips import FRAMES, Clip, Frames, limited
from laconic.stream.contract import Cut, Stream, TokenMethod
from laconic.stream.film import gridded
from laconic.stream.grids import smaller
from laconic.stream.resample import first_rows, resampled

SELECT = 4
"""V, as published."""


@register(
    "videostreaming",
    site="tokens",
    modality="video, image",
    mechanism="resampling",
    principle="query",
    source="arXiv 2405.16009",
    query_aware=True,
    training="trained",
    inferred="a copy of the decoder's first layers as encoder, which reads visual tokens; memories are added to averages of "
    "the frames; one token for a span of time; one indicator; a norm before the cosine; the decoder is frozen",
)
@dataclass(kw_only=True)
class VideoStreaming(TokenMethod):
    """A memory of every clip, written after that of the clip before; the question picks the ones that are read.

    With g a small causal decoder, F_k the visual tokens of T frames, S_k averages of P tokens a frame:

        H_k = S_k + W g([time, H_(k-1), time, F_k, S_k])  at S_k;   h_k, q = LN(g(...)) at an indicator token at the end
        r_k = cos(q, h_k);   the decoder reads [time_k, H_k] of the V highest r_k, in the order of time

    What it reads is V (1 + T P) tokens, however long the video is. Positions are renumbered.

    Args:
        select: V. None: as many as the budget allows; without one, 4.
        frames: "video", or "images" where the model is given the frames of one video as images.
        artifact: what `laconic fit videostreaming` wrote: a file, a shipped name, or a Hub id. None takes the one shipped
            for these weights.

    Raises:
        ArtifactError: none for this model.
        BudgetError: a budget below one memory, a memory of more tokens than its clip, or both a budget and select=.
        UnsupportedModelError: frames whose tokens are no grid.
    """

    select: int | None = None
    frames: Frames = "video"
    artifact: str | None = None

    default_keep: ClassVar[float | None] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.one_of(self, "frames", *FRAMES)
        if self.select is not None:
            checks.whole(self, "select", 1)
            if not self.budget_from_parameters:
                raise BudgetError(f"videostreaming: {self.budget} and select={self.select}: give one of them.")

    def attach(self, model: PreTrainedModel) -> None:
        if self.neutral:
            return
        artifact = Artifact.find(self.name, model, self.artifact)
        self._net = network.load(artifact, model).to(model.device)
        self._length = int(artifact.data["length"])

    def film(self, model: PreTrainedModel, question: Tensor) -> StreamedFilm:
        """A video that is read as its frames come, see `laconic.stream.long_video`; V is select= or its default.

        Raises:
            BudgetError: a share of tokens, whose number nobody knows yet.
        """
        if not self.budget_from_parameters:
            raise BudgetError(f"videostreaming: {self.budget}: how long the video will be is not known; give select=.")
        return StreamedFilm(self._net, self._length, self.select or SELECT, question)

    def cut(self, stream: Stream) -> Cut | None:
        return resampled(stream, self.name, partial(self._made, stream))

    def _made(self, stream: Stream, row: int) -> Iterator[tuple[Tensor, Tensor]]:
        """For every memory of a batch row that is read the rows of the stream that carry it, and its time with it."""
        question = stream.hidden[row, stream.texts(row)].float()
        for clip, limit in limited(self, stream, row, self.frames):
            film = StreamedFilm(self._net, self._length, self._memories(clip, limit), question)
            film.add(gridded(stream, row, clip, self.name))
            for one in film.chosen():
                placed = self._net.placed(one.memory[None], one.begin, one.end)[0]
                instead = "fit fewer tokens a frame (summary=)"
                yield first_rows(self.name, clip, one.begin, one.end, len(placed), instead), placed

    def _memories(self, clip: Clip, limit: int | None) -> int:
        """V for a clip that may keep `limit` tokens.

        Raises:
            BudgetError: fewer than a memory takes.
        """
        if limit is None:
            return self.select or SELECT
        rows, cols = smaller(*clip.spans[0].grid, self._net.summary)
        size = 1 + rows * cols * min(self._length, len(clip.rows))
        if limit < size:
            raise BudgetError(
                f"videostreaming: the budget leaves {limit} tokens to a video, and one memory of {self._length} frames "
                f"takes {size}; raise it, or fit shorter clips (length=) or fewer tokens a frame (summary=)."
            )
        return limit // size
