"""Images with questions and answers, for measuring and training: drawn scenes, or a file of your own."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from laconic.fit.text import IGNORED
from laconic.media import load_image
from laconic.prompts.batch import encode
from laconic.tasks.scenes.questions import EVALUATION_SEED, QUESTIONS, dialogue, drawn, make
from laconic.tasks.scenes.scenes import draw
from laconic.tasks.task import Sample, about_image


def scenes(count: int, seed: int) -> list[Sample]:
    """`count` drawn scenes from `seed` on, cycling through the kinds of question.

    Raises:
        ValueError: seeds that are reserved for evaluation.
    """
    if not 0 <= seed <= EVALUATION_SEED - count:
        raise ValueError(f"seed={seed} with {count} samples: seeds from {EVALUATION_SEED} on are reserved for evaluation.")
    kinds = list(QUESTIONS)
    return [make(kinds[i % len(kinds)], i) for i in range(seed, seed + count)]


def from_file(path: str | Path, answers: bool = False) -> list[Sample]:
    """Samples from lines of JSON with "image" (a path, relative to the file of the lines), "question" and, for training,
    "answer". An image is read when it is needed.

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
            image = path.parent / entry["image"]
            image.stat()
            found.append(about_image(path.name, number, entry["question"], (answer,), partial(load_image, image)))
        except (ValueError, KeyError, OSError, TypeError, AttributeError) as error:
            wanted = "image, question and answer" if answers else "image and question"
            raise ValueError(f"{path}, line {number}: needs JSON with {wanted}: {error!r}") from None
    if not found:
        raise ValueError(f"{path} is empty; give lines of JSON with image and question.")
    return found


def chosen(file: str, count: int, seed: int) -> list[Sample]:
    """What a measurement asks about: all samples of `file`, or `count` drawn scenes where no file is named."""
    return from_file(file) if file else scenes(count, seed)


def numbered(file: str, seed: int) -> Callable[[int], Sample]:
    """Questions with answers by number, to train with: those of `file` over and over, each pass in another order; without a
    file, drawn scenes, each once."""
    if not file:
        return lambda number: scenes(1, scene_number(seed, number))[0]
    known = from_file(file, answers=True)

    @lru_cache(1)
    def order(turn: int) -> list[int]:
        return random.Random(f"{seed}-{turn}").sample(range(len(known)), len(known))

    return lambda number: known[order(number // len(known))[number % len(known)]]


def scene_number(seed: int, number: int) -> int:
    """Of the scene that a training with `seed` draws as its `number`-th; none is for evaluation."""
    return (seed * 104_729 + number) % EVALUATION_SEED  # a prime, so that no two seeds begin alike


def conversations(file: str, seed: int, questions: int) -> Callable[[int], list[Sample]]:
    """Images by number, each as up to `questions` questions about it, to train with: drawn scenes, of which evaluation draws
    others, or those of `file`, with its one question each."""
    if file:
        known = numbered(file, seed)
        return lambda number: [known(number)]
    weights = dict.fromkeys(QUESTIONS, 1.0)

    def about(number: int) -> list[Sample]:
        rng = random.Random(f"{seed}-{number}")  # `pose` draws the scenes of evaluation from other strings
        scene = draw(rng)
        image = drawn(scene)
        asked = dialogue(rng, scene, questions, weights)
        return [about_image(one.kind, number, one.text, (one.answer,), lambda: image) for one in asked]

    return about


def inputs(processor: Any, asked: Sequence[Sample]) -> dict[str, Tensor]:
    """Prompts, padded on the left, ready for the model; `UnsupportedModelError` if `processor` takes no images."""
    return dict(encode(processor, [one.question for one in asked], [one.shown()[0] for one in asked]))


def batched(processor: Any, asked: Sequence[Sample], size: int, device: torch.device) -> list[dict[str, Tensor]]:
    """`inputs` of `size` samples each, on the model's device."""
    groups = [asked[i : i + size] for i in range(0, len(asked), size)]
    return [{name: x.to(device) for name, x in inputs(processor, group).items()} for group in groups]


def with_answers(processor: Any, asked: Sequence[Sample]) -> tuple[dict[str, Tensor], Tensor]:
    """Prompts followed by their answers and an end token, padded on the left; and labels [B, T], -100 over the prompts."""
    given = inputs(processor, asked)
    prompts = [ids[mask == 1] for ids, mask in zip(given["input_ids"], given["attention_mask"], strict=True)]
    ids, mask, labels = answered(processor.tokenizer, prompts, [one.answers[0] for one in asked])
    return {**given, "input_ids": ids, "attention_mask": mask}, labels


def answered(tokenizer: Any, prompts: Sequence[Tensor], answers: Sequence[str]) -> tuple[Tensor, Tensor, Tensor]:
    """Ids of prompts followed by their answers and an end token, padded on the left, their mask and their labels, [B, T]
    each; labels are -100 over the prompts.
    """
    ends = [[*tokenizer.encode(answer, add_special_tokens=False), tokenizer.eos_token_id] for answer in answers]
    most = max(len(prompt) + len(end) for prompt, end in zip(prompts, ends, strict=True))
    ids = torch.full((len(prompts), most), tokenizer.pad_token_id or 0, dtype=torch.long)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, IGNORED)
    for b, (prompt, end) in enumerate(zip(prompts, ends, strict=True)):
        ids[b, most - len(prompt) - len(end) :] = torch.cat([prompt, torch.tensor(end)])
        mask[b, most - len(prompt) - len(end) :] = 1
        labels[b, most - len(end) :] = torch.tensor(end)
    return ids, mask, labels
