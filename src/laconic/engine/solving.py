"""Problems put to a model in batches, with or without a method that shortens its thinking."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from laconic.decode.marks import Thinking, end_of_thinking, latent_token, thinking_in
from laconic.engine.engine import Engine
from laconic.engine.request import Request
from laconic.tasks.task import Task


@dataclass(frozen=True)
class Solved:
    """One problem and what the model made of it.

    Attributes:
        number: of the sample; `steps` that the problem has.
        right: whether the answer is.
        thinking: tokens before and after the mark.
        prompt, ids: token ids that were read, and those that were written, the end among them where it came.
    """

    number: int
    steps: int
    right: bool
    thinking: Thinking
    prompt: Sequence[int] = ()
    ids: Sequence[int] = ()


def solve(
    engine: Engine, task: Task, numbers: Sequence[int], request: Request, batch: int = 64, mark: str | None = None
) -> list[Solved]:
    """Put problems to the model, `batch` at a time.

    Args:
        numbers: of the samples. `request`: with which methods, and how tokens are chosen.
        mark: text that ends the thinking; None: what the model says.
    """
    ends = end_of_thinking(engine.model, engine.tokenizer, mark)
    latent, room = latent_token(engine.tokenizer), task.new_tokens or request.max_new_tokens
    found: list[Solved] = []
    for start in range(0, len(numbers), batch):
        samples = [task.sample(number) for number in numbers[start : start + batch]]
        prompts = [engine.prompt(replace(request, question=sample.question)).ids for sample in samples]
        answers = engine.answer_batch(batched(prompts, engine.tokenizer.pad_token_id), replace(request, max_new_tokens=room))
        for sample, prompt, answer in zip(samples, prompts, answers, strict=True):
            right, thinking = bool(task.exact(answer.text, sample)), thinking_in(answer.ids, ends, latent)
            found.append(Solved(sample.number, sample.facts["steps"], right, thinking, prompt, answer.ids))
    return found


def batched(prompts: Sequence[Sequence[int]], pad: int) -> dict[str, Any]:
    """Token ids and mask of prompts, padded on the left."""
    longest = max(map(len, prompts))
    ids = torch.tensor([[pad] * (longest - len(p)) + list(p) for p in prompts])
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts])
    return {"input_ids": ids, "attention_mask": mask}
