"""PVC: frames are encoded one after the other, each seeing the ones before it and knowing its step, so that each can add
what they missed; a still image is shown several times (arXiv 2412.09613)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor
from transformers import PreTrainedModel

from laconic import checks
from laconic.artifact import Artifact
from laconic.errors import BudgetError, UnsupportedModelError
from laconic.families.vision import VisualSpan, vision_family_of
from laconic.method import register
from laconic.methods.tokens.pvc import network
from laconic.methods.tokens.pvc.film import SeenFilm
from laconic.stream.clips import FRAMES, Clip, Frames, clips
from laconic.stream.contract import Cut, Stream, TokenMethod
from laconic.stream.resample import first_rows, resampled
from laconic.stream.trained_sizes import sized


@register(
    "pvc",
    site="tokens",
    modality="video, image",
    mechanism="resampling",
    principle="transformation",
    source="arXiv 2412.09613",
    query_aware=False,
    training="trained",
    inferred="placement, gates and zero beginnings of the temporal attention; steps are numbers of frames; a window; "
    "readouts begin as the projector on means, without a norm; encoder and decoder are frozen",
)
@dataclass(kw_only=True)
class PVC(TokenMethod):
    """A few tokens for every frame, encoded after the frames before it; a still image is a video of repeats.

    In the last layers of the encoder, between attention and MLP, for every place p and frame t of step t:

        x_t,p <- x_t,p + gate * MHA(AdaLN(x_t,p; t), x_<=t,p);   tokens_t = MLP(shuffle(x_t (1 + s(t)) + b(t)))

    The encoder's last layers run once more for it, which is counted. Positions are renumbered.

    Args:
        repeats: how often a still image is shown; 4 as published.
        block: patches a side of a token. None: by the budget, the smallest of those trained that fits it; without one the
            largest of those trained.
        frames: "video", or "images" where the model is given the frames of one video as images.
        limit: frames whose tokens `film` gives at most, evenly over the video; 64 as published for tests.
        artifact: what `laconic fit pvc` wrote: a file, a shipped name, or a Hub id. None takes the one shipped for these
            weights.

    Raises:
        ArtifactError: none for this model.
        BudgetError: a budget below what the largest block makes, more tokens than the model's own, or both a budget and
            block=.
        UnsupportedModelError: an encoder of another kind than CLIP and SigLIP, or a view that is not one run of it.
    """

    repeats: int = 4
    block: int | None = None
    frames: Frames = "video"
    limit: int = 64
    artifact: str | None = None

    default_keep: ClassVar[float | None] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.whole(self, "repeats", 1)
        checks.whole(self, "limit", 1)
        checks.one_of(self, "frames", *FRAMES)
        if self.block is not None and not self.budget_from_parameters:
            raise BudgetError(f"pvc: {self.budget} and block={self.block}: give one of them.")

    def attach(self, model: PreTrainedModel) -> None:
        if self.neutral:
            return
        artifact = Artifact.find(self.name, model, self.artifact)
        self._net = network.load(artifact, model).to(model.device)
        self._blocks = sorted(map(int, artifact.data["blocks"]))
        if self.block is not None and self.block not in self._blocks:
            raise ValueError(f"pvc: block={self.block}: this artifact has {', '.join(map(str, self._blocks))}.")

    def film(self, model: PreTrainedModel, question: Tensor) -> SeenFilm:
        """A video that is read as its frames come, see `laconic.stream.long_video`; at most limit= frames are given.

        Raises:
            BudgetError: a share of tokens, whose number nobody knows yet.
        """
        if not self.budget_from_parameters:
            raise BudgetError(f"pvc: {self.budget}: how long the video will be is not known; give limit= and block=.")
        tower = vision_family_of(model).tower(model)
        return SeenFilm(self._net, tower, self.block or self._blocks[-1], self.limit)

    def cut(self, stream: Stream) -> Cut | None:
        return resampled(stream, self.name, partial(self._made, stream))

    def _made(self, stream: Stream, row: int) -> Iterator[tuple[Tensor, Tensor]]:
        """For every frame of a batch row the rows of the stream that carry it, and its tokens. A still image has one frame,
        which carries all repeats."""
        tower = stream.visual.family.tower(stream.visual.model)
        found = clips(stream, row, self.frames)
        for clip, block in zip(found, self._sized(stream, row, found), strict=True):
            film = SeenFilm(self._net, tower, block)
            film.read(self._states(stream, clip))
            made = [tokens for _, tokens in film.kept] if len(clip.spans) > 1 else [film.soft()]
            for frame, tokens in enumerate(made):
                instead = "give a larger block= or fewer repeats="
                yield first_rows(self.name, clip, frame, frame + 1, len(tokens), instead), tokens

    def _shown(self, clip: Clip) -> int:
        return self.repeats if len(clip.spans) == 1 else len(clip.spans)

    def _sized(self, stream: Stream, row: int, found: Sequence[Clip]) -> list[int]:
        """The block of every clip of a batch row."""
        if self.budget_from_parameters:
            return [self.block or self._blocks[-1] for _ in found]
        counts = [{b: self._shown(clip) * (self._net.side // b) ** 2 for b in self._blocks} for clip in found]
        return sized(self, stream, row, [clip.rows.numel() for clip in found], counts)

    def _states(self, stream: Stream, clip: Clip) -> Tensor:
        """Frames before the network's first layer [T, N, C]; a still image as often as it is shown.

        Raises:
            UnsupportedModelError: see the class.
        """
        visual, side = stream.visual, self._net.side
        states = visual.calls[clip.spans[0].modality].output.hidden_states
        if states is None:
            raise UnsupportedModelError(f"pvc: a {visual.family.name} model does not give the states within its encoder.")
        numbers = [self._number(span, side) for span in clip.spans]
        shown = numbers * self.repeats if len(numbers) == 1 else numbers
        return torch.stack([states[self._net.first][number] for number in shown])

    def _number(self, span: VisualSpan, side: int) -> int:
        """Which view of the encoder's call a span is."""
        if span.patches.numel() != side**2:
            raise UnsupportedModelError(
                f"pvc: this view joins {tuple(span.patches.shape)} patches of several runs of the encoder, whose views have "
                f"{side} a side; give images as one view."
            )
        return int(span.patches.min()) // side**2
