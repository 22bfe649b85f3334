"""What the trainings of video compressors share: drawn clips with several questions about each, soft tokens in the place of
their visual tokens, and the frozen model's loss on the answers."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from transformers import PreTrainedModel

from laconic.families.vision import vision_family_of
from laconic.families.vision.frames import encode_frames
from laconic.fit.images import answered
from laconic.fit.losses import RightAnswers
from laconic.fit.visual import Asked, VisualFit
from laconic.prompts.clip import around
from laconic.prompts.reader import tokenizer_of
from laconic.stream.long_video import pixels_of
from laconic.tasks.video.clips import FRAMES, draw, film
from laconic.tasks.video.questions import QUESTIONS, Question, dialogue, shows


@dataclass(frozen=True)
class Shown:
    """Frames uint8 [T, S, S, 3], the questions about them, and for each in which frames what it names is seen, [T]."""

    frames: NDArray[np.uint8]
    questions: list[Question]
    where: list[list[bool]]


@dataclass
class Filmed(Asked):
    """Q = I * k questions about I clips of T frames. `features` are [I, T, h, w, D], `states` [I, T, N, C] with CLS.

    Attributes:
        closing: the token after a clip, bool [Q, T]; it is no patch and no text.
        close: what it is embedded as, [k, D].
        where: frames in which something is seen that a question names, bool [Q, T].
    """

    closing: Tensor
    close: Tensor
    where: Tensor

    @property
    def text(self) -> Tensor:
        return super().text & ~self.closing


@dataclass(kw_only=True)
class VideoFit(VisualFit):
    """A network between encoder and decoder, trained by questions about drawn clips. A subclass gives `network` and
    `logits`.

    Args:
        frames: lengths of clips; each step draws one.
    """

    frames: tuple[int, ...] = (16,)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.file:
            raise ValueError(f"{self.method}: file={self.file!r}: clips are drawn, and no file of videos is read.")
        if min(self.frames) < FRAMES[0]:
            raise ValueError(f"{self.method}: frames={self.frames}: clips have at least {FRAMES[0]} frames.")

    def build(self, model: PreTrainedModel, tokenizer: Any) -> nn.Module:
        self.family = vision_family_of(model)
        self.model, self.processor = model, tokenizer
        self.image = self.family.token_id(model, "video")
        self.right = RightAnswers()
        self.net: Any = self.network(model)
        return self.net

    def drawn(self, rng: random.Random) -> list[Shown]:
        """The clips of a step, all of one length; evaluation draws from other strings."""
        length, weights = rng.choice(self.frames), dict.fromkeys(QUESTIONS, 1.0)
        made: list[Shown] = []
        while len(made) < self.images:
            clip = draw(rng, length)
            asked = dialogue(rng, clip, self.questions, weights)
            if not asked:  # nothing in it is beyond doubt
                continue
            made.append(Shown(film(clip), asked, [shows(clip, one) for one in asked]))
        return made

    @torch.no_grad()
    def asked(self, number: int) -> Filmed:
        return self.filmed(self.drawn(random.Random(f"{self.method}-{self.seed}-{number}")))

    @torch.no_grad()
    def filmed(self, clips: list[Shown]) -> Filmed:
        """These clips encoded, and as many questions about each as all of them have."""
        each, device = min(len(clip.questions) for clip in clips), self.model.device
        side = self.family.image_side(self.model)
        assert side is not None
        pixels = [pixels_of([Image.fromarray(x) for x in clip.frames], side, self.processor) for clip in clips]
        seen = encode_frames(self.model, torch.stack(pixels))
        places = [self.image] * (seen.tokens[0, ..., 0].numel() + len(seen.closing))
        some = [question for clip in clips for question in clip.questions[:each]]
        ends = [around(self.processor, question.text, self.image) for question in some]
        prompts = [torch.cat([before, torch.tensor(places), after]) for before, after in ends]
        found = answered(tokenizer_of(self.processor), prompts, [question.answer for question in some])
        ids, mask, labels = (x.to(device) for x in found)
        image = (ids == self.image) & (labels < 0)
        last = image.cumsum(1) > len(places) - len(seen.closing)
        where = torch.tensor([shown for clip in clips for shown in clip.where[:each]], device=device)
        states = list(seen.states)
        return Filmed(seen.tokens, states, ids, mask, labels, image & ~last, image & last, seen.closing, where)

    def words(self, asked: Asked) -> Tensor:
        assert isinstance(asked, Filmed)
        words = super().words(asked)
        return words.masked_scatter(asked.closing[..., None], asked.close.to(words).repeat(len(words), 1))
