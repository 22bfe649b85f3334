"""Where thinking ends: the mark that a model writes between its chain of thought and its answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedModel

from laconic.errors import SessionError, UnsupportedModelError

KNOWN = ("</think>", "</thinking>", "<|end_of_thought|>", "[/THINK]", "◁/think▷")
"""Tokens by which published reasoning models end their thinking."""
LATENT = "<latent>"
"""The token that stands for a step without words, in tokenizers that have one."""


def end_of_thinking(model: PreTrainedModel, tokenizer: Any, mark: str | None = None) -> tuple[int, ...]:
    """Token ids of the mark that ends the thinking of `model`.

    Args:
        mark: text of the mark; None: what the model's config names as `end_of_thinking`, or one of `KNOWN`, where it is a
            token of the vocabulary.

    Raises:
        SessionError: no tokenizer to read the mark with.
        UnsupportedModelError: a model that does not think before it answers, as far as its vocabulary says.
    """
    if tokenizer is None:
        raise SessionError("the mark that ends the thinking is text: give compress() the tokenizer= of the model.")
    text = model.config.get_text_config()
    named = mark or getattr(text, "end_of_thinking", None)
    if named is None:
        vocabulary = tokenizer.get_vocab()
        named = next((known for known in KNOWN if known in vocabulary), None)
    if named is None:
        raise UnsupportedModelError(
            f"{model.config.model_type}: nothing in its vocabulary ends a chain of thought ({', '.join(KNOWN[:2])} ...), so "
            "there is no thinking to shorten; use a model that was trained to think, or give mark=, the text that "
            "stands between its thinking and its answers."
        )
    ids = tuple(tokenizer.encode(named, add_special_tokens=False))
    if not ids or tokenizer.unk_token_id in ids:
        raise SessionError(f"mark={named!r} is not in this tokenizer's vocabulary; give a text that it can write.")
    return ids


@dataclass(frozen=True)
class Thinking:
    """What an answer's tokens are: steps without words, written thinking, and the answer after the mark.

    Attributes:
        closed: whether the mark came; without it nothing is known to be an answer, and all tokens are thinking.
    """

    latent: int
    written: int
    answer: int
    closed: bool

    @property
    def steps(self) -> int:
        """Passes of the model that were spent on thinking."""
        return self.latent + self.written


def thinking_in(ids: Sequence[int], mark: Sequence[int], latent: int | None) -> Thinking:
    """Count the tokens of an answer before and after the first mark; the mark itself is neither.

    Args:
        latent: the token that stands for a step without words; None: there is none.
    """
    size, found = len(mark), len(ids)
    at = next((i for i in range(found - size + 1) if tuple(ids[i : i + size]) == tuple(mark)), None)
    thought = list(ids[: found if at is None else at])
    without_words = 0 if latent is None else thought.count(latent)
    return Thinking(
        without_words, len(thought) - without_words, 0 if at is None else found - at - size, closed=at is not None
    )


def latent_token(tokenizer: Any) -> int | None:
    """The token that stands for a step without words; None where the tokenizer has none."""
    found: int | None = tokenizer.get_vocab().get(LATENT)
    return found
