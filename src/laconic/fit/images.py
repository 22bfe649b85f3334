"""Images with questions and answers, for measuring and training: drawn scenes, or a file of your own."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from laconic.fit.text import IGNORED
from laconic.media import load_image
from laconic.prompts.batch import encode
from laconic.tasks.scenes.questions import EVALUATION_SEED, QUESTIONS, make


@dataclass(frozen=True)
class Asked:
    """A question about an image, and the answer. `source`: the image or its file, which is read when it is needed."""

    source: Image.Image | Path
    question: str
    answer: str

    @property
    def image(self) -> Image.Image:
        """Upright, RGB; raises `MediaError` if the file cannot be read."""
        return self.source if isinstance(self.source, Image.Image) else load_image(self.source)


def scenes(count: int, seed: int) -> list[Asked]:
    """`count` drawn scenes from `seed` on, cycling through the kinds of question.

    Raises:
        ValueError: seeds that are reserved for evaluation.
    """
    if not 0 <= seed <= EVALUATION_SEED - count:
        raise ValueError(f"seed={seed} with {count} samples: seeds from {EVALUATION_SEED} on are reserved for evaluation.")
    kinds = list(QUESTIONS)
    samples = [make(kinds[i % len(kinds)], i) for i in range(seed, seed + count)]
    return [Asked(s.shown()[0], s.question, s.answers[0]) for s in samples]


def from_file(path: str | Path, answers: bool = False) -> list[Asked]:
    """Samples from lines of JSON with "image" (a path, relative to the file of the lines), "question" and, for training,
    "answer".

    Raises:
        ValueError: a line without these keys, or one that names a file that does not exist.
    """
    path, found = Path(path), []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            answer = entry["answer"] if answers else entry.get("answer", "")
            found.append(Asked(path.parent / entry["image"], entry["question"], answer))
            found[-1].source.stat()  # type: ignore[union-attr]
        except (ValueError, KeyError, OSError, TypeError, AttributeError) as error:
            wanted = "image, question and answer" if answers else "image and question"
            raise ValueError(f"{path}, line {number}: needs JSON with {wanted}: {error!r}") from None
    if not found:
        raise ValueError(f"{path} is empty; give lines of JSON with image and question.")
    return found


def numbered(file: str, seed: int) -> Callable[[int], Asked]:
    """Questions with answers by number, to train with: those of `file` over and over, each pass in another order; without a
    file, drawn scenes, each once."""
    if not file:
        return lambda number: scenes(1, seed * 100_000 + number)[0]
    known = from_file(file, answers=True)

    @lru_cache(1)
    def order(turn: int) -> list[int]:
        return random.Random(f"{seed}-{turn}").sample(range(len(known)), len(known))

    return lambda number: known[order(number // len(known))[number % len(known)]]


def inputs(processor: Any, asked: list[Asked]) -> dict[str, Tensor]:
    """Prompts, padded on the left, ready for the model; `UnsupportedModelError` if `processor` takes no images."""
    return dict(encode(processor, [one.question for one in asked], [one.image for one in asked]))


def with_answers(processor: Any, asked: list[Asked]) -> tuple[dict[str, Tensor], Tensor]:
    """Prompts followed by their answers and an end token, padded on the left; and labels [B, T], -100 over the prompts."""
    given = inputs(processor, asked)
    tokenizer = processor.tokenizer
    answers = [[*tokenizer.encode(one.answer, add_special_tokens=False), tokenizer.eos_token_id] for one in asked]
    prompts = [ids[mask == 1] for ids, mask in zip(given["input_ids"], given["attention_mask"], strict=True)]
    most = max(len(prompt) + len(answer) for prompt, answer in zip(prompts, answers, strict=True))
    ids = torch.full((len(asked), most), tokenizer.pad_token_id or 0, dtype=torch.long)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, IGNORED)
    for b, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        ids[b, most - len(prompt) - len(answer) :] = torch.cat([prompt, torch.tensor(answer)])
        mask[b, most - len(prompt) - len(answer) :] = 1
        labels[b, most - len(answer) :] = torch.tensor(answer)
    return {**given, "input_ids": ids, "attention_mask": mask}, labels
