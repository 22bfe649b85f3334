"""Prompts of a few known words as numbers, for networks that have a table of words instead of a language model."""

from __future__ import annotations

from collections.abc import Sequence

from laconic.prompts.text import PromptError


def word_ids(prompt: str, words: Sequence[str], most: int) -> list[int]:
    """Numbers of the words of `prompt`, from 1 on, padded with 0 to `most`.

    Raises:
        PromptError: a word that is not in the vocabulary, or too many.
    """
    asked, known = prompt.lower().split(), {word: i for i, word in enumerate(words, 1)}
    unknown = [word for word in asked if word not in known]
    if unknown or len(asked) > most:
        what = f"{unknown[0]!r} is none of its words" if unknown else f"{len(asked)} words are more than {most}"
        raise PromptError(f"the prompt {prompt!r} cannot be read: {what}. Words: {', '.join(known)}.")
    return [*(known[word] for word in asked), *[0] * (most - len(asked))]
