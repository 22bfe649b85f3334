"""Training batches of ``testbed/vlm``: images, many questions about each, and which token may see which.

One image answers many questions. In most rows every question sees the image and itself alone, at the positions that it
would have as the only question; in the others the questions are the turns of one chat.
"""

import random
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from laconic.tasks.scenes.questions import QUESTIONS, Question, dialogue
from laconic.tasks.scenes.scenes import COLOURS, KINDS, LARGE, SIZE, Scene, draw, patch_labels, render
from laconic.testbed.any_resolution import VISUAL_TOKENS as LARGE_TOKENS
from laconic.testbed.any_resolution import cut, view_labels, view_scenes
from laconic.testbed.packing import Writer, pack
from laconic.testbed.vlm_model import IMAGE, VISUAL_TOKENS

KIND_NAMES = list(QUESTIONS)
SCENE_CLASSES = len(KINDS) * len(COLOURS)
CHAINED = 0.2
"""Share of rows whose questions are turns of one chat."""


@dataclass
class Batch:
    """B rows of n = V visual + T text tokens: two opening ids, the V visual tokens, then the other ids.

    pixels [B, 3, S, S], or [B, views, 3, S, S] at any resolution; ids [B, T]; positions [B, n]; mask [B, 1, n, n] (True:
    may see); at [N] flat index into [B * n] of the token before each answer token; targets [N]; question [N] number of the
    question that each belongs to; kinds [Q] of the questions; patches [B * views, 5, P, P]; names [B * views, 36] which
    shapes there are.
    """

    pixels: Tensor
    ids: Tensor
    positions: Tensor
    mask: Tensor
    at: Tensor
    targets: Tensor
    question: Tensor
    kinds: Tensor
    patches: Tensor
    names: Tensor


def pixels_of(images: list[np.ndarray]) -> Tensor:
    """Images [..., S, S, 3] of bytes as [B, ..., 3, S, S] in -1 .. 1, as the processor makes them."""
    return torch.from_numpy(np.stack(images)).movedim(-1, -3).float() / 127.5 - 1


class Batches:
    """Draws batches with a tokenizer: images of 96 pixels, or with ``large`` of 192 cut into views."""

    def __init__(self, tokenizer: Any, large: bool = False) -> None:
        self.large = large
        self.size, self.visual = (LARGE, LARGE_TOKENS) if large else (SIZE, VISUAL_TOKENS)
        self.writer, self.image = Writer(tokenizer), tokenizer.convert_tokens_to_ids(IMAGE)

    def draw(self, rng: random.Random, rows: int, questions: int, weights: dict[str, float]) -> Batch:
        """``rows`` fresh scenes with up to ``questions`` each, kinds by ``weights`` (none: images only)."""
        scenes = [draw(rng, self.size) for _ in range(rows)]
        asked = [dialogue(rng, scene, questions, weights) if weights else [] for scene in scenes]
        return self.collate(scenes, asked, [rng.random() < CHAINED for _ in scenes])

    def collate(self, scenes: list[Scene], asked: list[list[Question]], chained: list[bool]) -> Batch:
        """The batch of ``scenes`` and the questions ``asked`` about each."""
        opening = [self.writer.bos, self.writer.user, *[self.image] * self.visual]
        turns = [self.writer.turns(*row) for row in zip(asked, chained, strict=True)]
        packed = pack([opening] * len(scenes), turns, chained)
        views = [part for scene in scenes for part in (view_scenes(scene) if self.large else [scene])]
        names = torch.zeros(len(views), SCENE_CLASSES)
        for b, view in enumerate(views):
            for shape in view.shapes:
                names[b, KINDS.index(shape.kind) * len(COLOURS) + list(COLOURS).index(shape.colour)] = 1
        images = [render(scene) for scene in scenes]
        labels = [view_labels(scene) if self.large else patch_labels(scene)[None] for scene in scenes]
        return Batch(
            pixels=pixels_of([cut(image) for image in images] if self.large else images),
            ids=torch.cat([packed.ids[:, :2], packed.ids[:, len(opening) :]], 1),
            positions=packed.positions,
            mask=packed.mask,
            at=packed.at,
            targets=packed.targets,
            question=packed.question,
            kinds=torch.tensor([KIND_NAMES.index(q.kind) for questions in asked for q in questions], dtype=torch.long),
            patches=torch.from_numpy(np.concatenate(labels)),
            names=names,
        )
