"""Token sequences to train on, by seed: the testbed's mixture for its model, or any text file for any model."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any, Protocol

import torch

from laconic.tasks.text import corpus
from laconic.tasks.text.mixture import Example, Mixture

IGNORED = -100
"""Label of a position without a loss."""
COPY_TOKENS = (24, 96)


class Source(Protocol):
    """Draws batches; equal (seed, step) give equal batches, so a resumed training sees the same ones."""

    def batch(self, seed: int, step: int, size: int, tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
        """ids and labels, [size, tokens] each."""


class TestbedSource:
    """What ``testbed/lm`` was trained on (training documents, seeds below 1,000,000), and copies of prose at a distance.

    Half of the batches are task chats, with a loss on the answers; a quarter are copies; the rest are prose, and repeated
    segments and needle lines.
    """

    __test__ = False  # the name begins with Test, but pytest must not collect it

    def __init__(self, tokenizer: Any):
        self.mixture = Mixture(tokenizer)

    def batch(self, seed: int, step: int, size: int, tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
        rng = random.Random(f"{seed}-{step}")
        kind = rng.random()
        return labelled([self._example(rng, kind, tokens) for _ in range(size)], tokens)

    def _example(self, rng: random.Random, kind: float, tokens: int) -> Example:
        mixture = self.mixture
        if kind < 0.5:
            return mixture.task_chat(rng.randrange(1_000_000), tokens)
        if kind < 0.75:
            return copies(rng, mixture.prose, tokens)
        if kind < 0.87:
            return mixture.plain_prose(rng, tokens, share=1.0)
        if kind < 0.95:
            return mixture.relation(rng, tokens)
        return mixture.induction(rng, tokens, mixture.tokenizer.vocab_size - len(mixture.tokenizer.all_special_ids))


class ChatSource:
    """Only the task chats of ``testbed/lm``, with a loss on the answers."""

    def __init__(self, tokenizer: Any):
        self.mixture = Mixture(tokenizer)

    def batch(self, seed: int, step: int, size: int, tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
        rng = random.Random(f"{seed}-{step}")
        return labelled([self.mixture.task_chat(rng.randrange(1_000_000), tokens) for _ in range(size)], tokens)


class TextSource:
    """Windows of one text, with a loss on every token."""

    def __init__(self, tokenizer: Any, text: str):
        self.ids = tokenizer(text, add_special_tokens=False)["input_ids"]

    def batch(self, seed: int, step: int, size: int, tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
        if len(self.ids) <= tokens:
            raise ValueError(f"the text has {len(self.ids)} tokens; it needs more than tokens={tokens}.")
        rng = random.Random(f"{seed}-{step}")
        starts = [rng.randrange(len(self.ids) - tokens) for _ in range(size)]
        ids = torch.tensor([self.ids[at : at + tokens] for at in starts])
        return ids, ids.clone()


class FileSource(TextSource):
    """Windows of one UTF-8 text file."""

    def __init__(self, tokenizer: Any, path: Path):
        super().__init__(tokenizer, path.read_text(encoding="utf-8"))


class ProseSource(TextSource):
    """Windows of Python's documentation, of which evaluation reads other documents."""

    def __init__(self, tokenizer: Any):
        super().__init__(tokenizer, "\n".join(corpus.lines("prose")))


def copies(rng: random.Random, prose: list[int], tokens: int) -> Example:
    """Passages of prose in sequence, each of which may be repeated later: repeats are supervised except for
    their first tokens, which nothing predicts."""
    example = Example()
    passages: list[list[int]] = []
    while len(example.ids) < tokens:
        if passages and rng.random() < 0.5:
            passage = rng.choice(passages)
            at = len(example.ids)
            example.targets |= {at + i: ((token,), 1.0, 0) for i, token in enumerate(passage) if 4 <= i < tokens - at}
        else:
            length = rng.randint(*COPY_TOKENS)
            start = rng.randrange(len(prose) - length)
            passage = prose[start : start + length]
            passages.append(passage)
        example.ids += passage
    del example.ids[tokens:]
    return example


def labelled(examples: list[Example], tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
    """ids [B, tokens], padded on the right with 0, and labels [B, tokens]: the token where it is supervised, else -100."""
    ids = torch.zeros(len(examples), tokens, dtype=torch.long)
    labels = torch.full_like(ids, IGNORED)
    for row, example in enumerate(examples):
        ids[row, : len(example.ids)] = torch.tensor(example.ids)
        for at in example.targets:
            labels[row, at] = example.ids[at]
    return ids, labels
