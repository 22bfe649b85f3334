"""From sounds and text to the inputs of a model that hears: through its processor's chat template, the sounds first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from laconic.errors import MediaError
from laconic.prompts.rendering import render, specials, tokens_of
from laconic.prompts.text import JOINT, MARK, Prompt, PromptError, check_text


def hears(processor: Any) -> bool:
    """Whether it prepares sounds for a prompt: it has a feature extractor and a placeholder for sound."""
    return hasattr(processor, "audio_token") and getattr(processor, "feature_extractor", None) is not None


def build(
    processor: Any,
    sounds: Sequence[NDArray[np.float32]],
    context: str,
    question: str = "",
    *,
    answer_prefix: str = "",
    system: str | None = None,
) -> Prompt:
    """Build the prompt of one question about sounds and a context.

    Args:
        processor: of the model.
        sounds: mono, at the sampling rate of the processor, in the order in which the prompt has them.
        context, question: text; one of them may be empty.
        answer_prefix: opens the answer. `system`: text of the system turn.

    Returns:
        the prompt; its context ends after the context's text and after the last sound.

    Raises:
        MediaError: a sound that the model's window does not hold, or that is too short for two tokens.
        PromptError: nothing to ask, no chat template, or one that has no place for sound.
    """
    given = {"context": context, "question": question, "answer prefix": answer_prefix, "system message": system or ""}
    for name, text in given.items():
        check_text(name, text)
    if not hears(processor):
        raise PromptError(
            f"a {type(processor).__name__} does not prepare sound; give a model that hears, with its processor."
        )
    if not getattr(processor, "chat_template", None):
        raise PromptError(f"{type(processor).__name__} has no chat template, so how this model is given sound is unknown.")
    check_length(processor, sounds)
    joint = JOINT if context and question else ""
    parts = [{"type": "audio"}] * len(sounds)

    def written(body: str) -> str:
        return render(processor, [*parts, {"type": "text", "text": body}] if body else list(parts), answer_prefix, system)

    text = written(context + joint + question)
    token = processor.audio_token
    if text.count(token) != len(sounds):
        raise PromptError(
            f"the chat template of this model wrote {text.count(token)} places for {len(sounds)} sounds; check that the "
            "processor belongs to the model."
        )
    cut = text.rindex(token) + len(token) if sounds else 0
    if context:
        head, _, tail = written(context + MARK + joint + question).partition(MARK)
        if head + tail != text:
            raise PromptError("the chat template changes the user's text, so the end of the context cannot be found in it.")
        cut = max(cut, len(head))
    return _encoded(processor, sounds, text, cut)


def check_length(processor: Any, sounds: Sequence[NDArray[np.float32]]) -> None:
    """Refuse what the feature extractor would cut off, or what is too short to be told from one place in a prompt."""
    extractor = processor.feature_extractor
    rate, most = extractor.sampling_rate, extractor.n_samples
    least = 7 * extractor.hop_length  # columns of two tokens
    for number, sound in enumerate(sounds, 1):
        if not least <= len(sound) <= most:
            raise MediaError(
                f"sound {number} lasts {len(sound) / rate:.2f} s; this model hears {least / rate:.2g} to {most / rate:g} s "
                f"at a time. {'Cut it into pieces.' if len(sound) > most else 'Give a longer one.'}"
            )


def _encoded(processor: Any, sounds: Sequence[NDArray[np.float32]], text: str, cut: int) -> Prompt:
    """Ids and spectrograms, the text up to `cut` its context. All placeholders lie before the cut."""
    rate = processor.feature_extractor.sampling_rate
    options = {"audio": list(sounds), "sampling_rate": rate} if sounds else {}
    try:
        found = processor(text=[text], add_special_tokens=specials(processor, text), return_tensors="pt", **options)
    except ValueError as error:
        raise MediaError(f"{type(processor).__name__} refuses the sounds: {error}") from error
    ids = found.pop("input_ids")[0].tolist()
    found.pop("attention_mask", None)
    plain, start = tokens_of(processor, text, cut)
    after = len(plain) - start
    return Prompt(ids[: len(ids) - after], ids[len(ids) - after :], True, text, dict(found))
