"""Passages of documents and what follows them, as tensors, to train networks beside any model."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from laconic.fit.slots import Reading
from laconic.prompts.files import read_text
from laconic.prompts.text import PromptError, build
from laconic.tasks.text import corpus

REPEAT = "Repeat the text above, word for word."


class DocumentReadings:
    """Draws batches of passages, each with its true continuation, or with itself after a request to repeat it.

    Args:
        tokenizer: of the model that reads them.
        files: UTF-8 texts; none: Python's documentation, of which evaluation reads other documents.
        following: tokens of a continuation.
    """

    end = -1
    """No token is left out of what is learned."""

    def __init__(self, tokenizer: Any, files: Sequence[str] = (), following: int = 64):
        texts = [read_text(Path(file)) for file in files] or ["\n".join(lines) for lines in corpus.documents()]
        self.following = following
        self.named = files[0] if len(files) == 1 else "the longest of the documents"
        self.documents = [tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"] for text in texts]
        asked = build(tokenizer, "A text.", REPEAT)
        self.opening = torch.tensor(asked.context[: asked.opening], dtype=torch.long)
        self.request = torch.tensor(asked.question, dtype=torch.long)

    def check(self, size: int) -> None:
        """Raise `PromptError` where no document has so many tokens."""
        longest = max(map(len, self.documents))
        if longest < size:
            raise PromptError(
                f"{self.named} has {longest} tokens, and a passage with what follows it {size}; give longer texts, or "
                "smaller lengths and following."
            )

    def draw(self, rng: random.Random, rows: int, tokens: int, copying: bool = False) -> Reading:
        """`rows` passages of so many tokens, at random places of the documents that are long enough."""
        size = tokens if copying else tokens + self.following
        places = [max(0, len(ids) - size + 1) for ids in self.documents]
        drawn = []
        for ids in rng.choices(self.documents, places, k=rows):
            start = rng.randrange(len(ids) - size + 1)
            drawn.append(ids[start : start + size])
        whole = torch.tensor(drawn)
        context, rest = whole[:, :tokens], whole[:, tokens:]
        learned = torch.ones_like(rest, dtype=torch.bool)
        if copying:
            request = self.request.expand(rows, -1)
            rest = torch.cat([request, context], 1)
            learned = torch.cat([torch.zeros_like(request), torch.ones_like(context)], 1).bool()
        return Reading(self.opening, context, rest, learned)
