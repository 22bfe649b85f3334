"""Problems with their chains of thought as token ids, for trainings."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from laconic.tasks.reasoning.chains import MARK, STYLES, chain
from laconic.tasks.reasoning.problems import KINDS, STEPS, Problem
from laconic.tasks.reasoning.recall import Recall

SPACE = "QUESTION"
"""Stands for the question in a prompt that is made once."""
IGNORED = -100
"""Label of what no loss is taken on."""


@dataclass(frozen=True)
class Solution:
    """A problem with a chain of thought.

    Attributes:
        prompt: token ids up to where the thinking begins. `thought`: the chain. `answer`: the mark, the answer and the end.
    """

    problem: Problem
    prompt: list[int]
    thought: list[int]
    answer: list[int]


class Solutions:
    """Draws solved problems for a model whose tokenizer has a token for the mark.

    Args:
        styles: how chains are written -> how often. `steps`: how many steps problems have. `kinds`: of `KINDS`.

    Raises:
        ValueError: a tokenizer without the mark.
    """

    def __init__(
        self,
        tokenizer: Any,
        styles: Mapping[str, float],
        steps: Sequence[int] = STEPS,
        kinds: Sequence[str] = tuple(KINDS),
    ):
        if MARK not in tokenizer.get_vocab():
            raise ValueError(
                f"this tokenizer has no token {MARK!r}: these problems are for a model of laconic.testbed.train_reasoner."
            )
        self.tokenizer, self.styles, self.steps, self.kinds = tokenizer, dict(styles), tuple(steps), tuple(kinds)
        chat = [{"role": "user", "content": SPACE}]
        opening = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        self._before, _, self._after = opening.partition(SPACE)

    def draw(self, rng: random.Random, rows: int) -> list[Solution]:
        """`rows` problems with their chains."""
        problems, texts = [], []
        for _ in range(rows):
            style = rng.choices(list(self.styles), list(self.styles.values()))[0]
            problem = KINDS[rng.choice(self.kinds)](rng, rng.choice(self.steps))
            problems.append(problem)
            opening = self._before + f"{problem.question} {STYLES[style]}" + self._after
            texts += [opening, chain(problem, style, rng), MARK + problem.answer]
        ids = self.tokenizer(texts, add_special_tokens=False)["input_ids"]
        end = [self.tokenizer.eos_token_id]
        return [
            Solution(problem, prompt, thought, answer + end)
            for problem, prompt, thought, answer in zip(problems, ids[::3], ids[1::3], ids[2::3], strict=True)
        ]


def recalled(tokenizer: Any, rng: random.Random, facts: int, rows: int) -> list[Solution]:
    """`rows` of the first `facts` facts that are known by heart: what a chat asks, the mark, the answer.

    Some facts are drawn more often than others, as in any text: the first one nine times as often as the last.
    """
    task, often = Recall(facts=facts), [1 / (1 + 8 * number / facts) for number in range(facts)]
    asked = [task.sample(number).turns[0] for number in rng.choices(range(facts), often, k=rows)]
    chats = [[{"role": "user", "content": turn.question}] for turn in asked]
    openings = tokenizer.apply_chat_template(chats, tokenize=False, add_generation_prompt=True)
    ids = tokenizer([*openings, *(turn.gold for turn in asked)], add_special_tokens=False)["input_ids"]
    return [
        Solution(Problem(turn.question, (), turn.answers[0]), prompt, [], [*answer, tokenizer.eos_token_id])
        for turn, prompt, answer in zip(asked, ids[:rows], ids[rows:], strict=True)
    ]


def padded(solutions: Sequence[Solution], pad: int) -> tuple[Tensor, Tensor]:
    """Token ids [B, T], padded on the right, and labels [B, T]: the ids of thought and answer, `IGNORED` elsewhere."""
    rows = [(x.prompt, x.thought + x.answer) for x in solutions]
    longest = max(len(prompt) + len(rest) for prompt, rest in rows)
    ids = torch.full((len(rows), longest), pad)
    labels = torch.full((len(rows), longest), IGNORED)
    for i, (prompt, rest) in enumerate(rows):
        ids[i, : len(prompt) + len(rest)] = torch.tensor(prompt + rest)
        labels[i, len(prompt) : len(prompt) + len(rest)] = torch.tensor(rest)
    return ids, labels
