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
from laconic.testbed.vlm_model import VISUAL_TOKENS

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
        self.tokenizer, self.large = tokenizer, large
        self.size, self.visual = (LARGE, LARGE_TOKENS) if large else (SIZE, VISUAL_TOKENS)
        self.cache: dict[str, list[int]] = {}
        self.bos, self.eos = tokenizer.bos_token_id, tokenizer.eos_token_id
        self.user, self.assistant = (tokenizer.convert_tokens_to_ids(f"<|{role}|>") for role in ("user", "assistant"))

    def encode(self, text: str) -> list[int]:
        """Ids of ``text``, from a cache."""
        if text not in self.cache:
            self.cache[text] = self.tokenizer.encode(text, add_special_tokens=False)
        return self.cache[text]

    def draw(self, rng: random.Random, rows: int, questions: int, weights: dict[str, float]) -> Batch:
        """``rows`` fresh scenes with up to ``questions`` each, kinds by ``weights`` (none: images only)."""
        scenes = [draw(rng, self.size) for _ in range(rows)]
        asked = [dialogue(rng, scene, questions, weights) if weights else [] for scene in scenes]
        return self.collate(scenes, asked, [rng.random() < CHAINED for _ in scenes])

    def collate(self, scenes: list[Scene], asked: list[list[Question]], chained: list[bool]) -> Batch:
        """The batch of ``scenes`` and the questions ``asked`` about each."""
        rows, opening = [], 2 + self.visual
        at: list[tuple[int, int]] = []
        targets: list[int] = []
        owner: list[int] = []
        kinds: list[int] = []
        for b, questions in enumerate(asked):
            ids, turns, positions = [self.bos, self.user], [0] * opening, list(range(opening))
            for turn, question in enumerate(questions, 1):
                lead = [self.user] if chained[b] and turn > 1 else []
                prompt = [*lead, *self.encode(question.text), self.eos, self.assistant]
                answer = [*self.encode(question.answer), self.eos]
                begin = len(turns)
                at += [(b, begin + len(prompt) + i - 1) for i in range(len(answer))]
                targets += answer
                owner += [len(kinds)] * len(answer)
                kinds.append(KIND_NAMES.index(question.kind))
                ids += prompt + answer
                first = begin if chained[b] else opening
                positions += range(first, first + len(prompt) + len(answer))
                turns += [turn] * (len(prompt) + len(answer))
            rows.append((ids, turns, positions))
        n = max(len(turns) for _, turns, _ in rows)
        ids_table = np.zeros((len(rows), n - self.visual), np.int64)
        turn_table = np.full((len(rows), n), -1)
        position_table = np.zeros((len(rows), n), np.int64)
        for b, (ids, turns, positions) in enumerate(rows):
            ids_table[b, : len(ids)] = ids
            turn_table[b, : len(turns)] = turns
            position_table[b, : len(positions)] = positions
        query, key = turn_table[:, :, None], turn_table[:, None, :]
        seen = (query == key) | ((key == 0) & (query > 0)) | ((key > 0) & (query > key) & np.array(chained)[:, None, None])
        views = [part for scene in scenes for part in (view_scenes(scene) if self.large else [scene])]
        names = torch.zeros(len(views), SCENE_CLASSES)
        for b, view in enumerate(views):
            for shape in view.shapes:
                names[b, KINDS.index(shape.kind) * len(COLOURS) + list(COLOURS).index(shape.colour)] = 1
        images = [render(scene) for scene in scenes]
        labels = [view_labels(scene) if self.large else patch_labels(scene)[None] for scene in scenes]
        return Batch(
            pixels=pixels_of([cut(image) for image in images] if self.large else images),
            ids=torch.from_numpy(ids_table),
            positions=torch.from_numpy(position_table),
            mask=torch.from_numpy(seen & np.tri(n, dtype=bool))[:, None],
            at=torch.tensor([b * n + i for b, i in at], dtype=torch.long),
            targets=torch.tensor(targets, dtype=torch.long),
            question=torch.tensor(owner, dtype=torch.long),
            kinds=torch.tensor(kinds, dtype=torch.long),
            patches=torch.from_numpy(np.concatenate(labels)),
            names=names,
        )
