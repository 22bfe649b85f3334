"""Pictures with questions and answers, to calibrate on and to train with: drawn scenes, or a file of one's own."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from laconic.errors import UnsupportedModelError
from laconic.testbed.scene_questions import EVALUATION_SEED, QUESTIONS, make
from laconic.testbed.scenes import render
from laconic.train.text import IGNORED


@dataclass(frozen=True)
class Asked:
    """One picture, a question about it, and the answer."""

    picture: Image.Image
    question: str
    answer: str


def scenes(count: int, seed: int) -> list[Asked]:
    """`count` drawn scenes, kinds of question in turn, from `seed` on.

    Raises:
        ValueError: seeds that are for evaluation.
    """
    if not 0 <= seed <= EVALUATION_SEED - count:
        raise ValueError(f"seed={seed} with {count} samples: seeds from {EVALUATION_SEED} on are reserved for evaluation.")
    kinds = list(QUESTIONS)
    samples = [make(kinds[i % len(kinds)], i) for i in range(seed, seed + count)]
    return [Asked(Image.fromarray(render(s.scene)), s.question.text, s.question.answer) for s in samples]


def from_file(path: str | Path) -> list[Asked]:
    """Lines of JSON with "image" (a path, relative to the file), "question" and, for training, "answer"."""
    path, found = Path(path), []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            entry = json.loads(line)
            picture = Image.open(path.parent / entry["image"]).convert("RGB")
            found.append(Asked(picture, entry["question"], entry.get("answer", "")))
        except (ValueError, KeyError, OSError) as error:
            raise ValueError(f"{path}, line {number}: needs JSON with image and question: {error!r}") from None
    if not found:
        raise ValueError(f"{path} is empty; give lines of JSON with image and question.")
    return found


def inputs(processor: Any, asked: list[Asked]) -> dict[str, Tensor]:
    """Prompts, padded on the left, ready for the model.

    Raises:
        UnsupportedModelError: what was given is no processor of pictures.
    """
    if not hasattr(processor, "image_processor"):
        raise UnsupportedModelError(
            f"a {type(processor).__name__} does not prepare pictures; give a vision language model with its processor."
        )
    processor.tokenizer.padding_side = "left"
    texts = []
    for one in asked:
        content = [{"type": "image"}, {"type": "text", "text": one.question}]
        texts.append(processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True))
    return dict(processor(images=[one.picture for one in asked], text=texts, padding=True, return_tensors="pt"))


def with_answers(processor: Any, asked: list[Asked]) -> tuple[dict[str, Tensor], Tensor]:
    """Prompts with their answers and an end token behind them, padded on the left; and labels [B, T], -100 at prompts."""
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
