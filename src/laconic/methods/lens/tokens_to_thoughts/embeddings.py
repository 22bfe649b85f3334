"""Vectors of words from a model: rows of its embeddings, and hidden states of every layer at exactly the word's tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

TEMPLATE = "This is a {word}. "


def span(tokenizer: Any, word: str, template: str = TEMPLATE) -> tuple[list[int], list[int]]:
    """Token ids of the template with `word` in it, and the places of the tokens that hold any of its letters.

    Raises:
        ValueError: no token holds one.
    """
    text = template.format(word=word)
    start = template.index("{word}")
    read = tokenizer(text, add_special_tokens=True, return_offsets_mapping=True)
    places = [i for i, (a, b) in enumerate(read["offset_mapping"]) if a < start + len(word) and b > start and b > a]
    if not places:
        raise ValueError(f"no token of {text!r} holds {word!r}; the word is empty, or the tokenizer drops it.")
    return read["input_ids"], places


@torch.no_grad()
def static(model: Any, tokenizer: Any, words: Sequence[str]) -> NDArray[np.float64]:
    """Mean of the input embeddings over each word's tokens inside the template, [n, d]."""
    table = model.get_input_embeddings().weight
    rows = []
    for word in words:
        ids, places = span(tokenizer, word)
        rows.append(table[torch.tensor(ids, device=table.device)[places]].float().mean(0))
    return _array(torch.stack(rows))


@torch.no_grad()
def contextual(model: Any, tokenizer: Any, words: Sequence[str]) -> NDArray[np.float64]:
    """Mean hidden state over each word's tokens before the first layer and after every layer, [layers + 1, n, d]."""
    rows = []
    for word in words:
        ids, places = span(tokenizer, word)
        output = model(
            input_ids=torch.tensor([ids], device=model.device), output_hidden_states=True, use_cache=False, logits_to_keep=1
        )
        rows.append(torch.stack([hidden[0, places].float().mean(0) for hidden in output.hidden_states]))
    return _array(torch.stack(rows, 1))


def _array(x: Tensor) -> NDArray[np.float64]:
    found: NDArray[np.float64] = x.cpu().double().numpy()
    return found
