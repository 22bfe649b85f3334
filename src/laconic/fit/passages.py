"""Passages of Python's documentation for measurements: of the documents that no evaluation reads, in random order."""

from __future__ import annotations

import random
from typing import Any

from laconic.tasks.text.corpus import documents


def passage_ids(tokenizer: Any, tokens: int, key: str) -> list[int]:
    """Ids of the first `tokens` tokens of the documents, in an order drawn by `key`; fewer where all have fewer."""
    rng = random.Random(f"calibration-{key}")
    texts = list(documents())
    rng.shuffle(texts)
    ids: list[int] = []
    for lines in texts:
        if len(ids) >= tokens:
            break
        ids += tokenizer.encode("\n".join(lines) + "\n\n", add_special_tokens=False)
    return ids[:tokens]


def passage(tokenizer: Any, tokens: int, key: str) -> str:
    """The text of `passage_ids`."""
    return str(tokenizer.decode(passage_ids(tokenizer, tokens, key)))
