"""A further turn of a conversation: the token ids that come after an answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from laconic.prompts.text import MARK, PromptError, check_text


@dataclass(frozen=True)
class Turn:
    """The user's next turn.

    Attributes:
        end: the token that ends the answer before it; None if the chat template writes none.
        ids: what comes after that token: the user's turn and the opening of the next answer.
    """

    end: int | None
    ids: list[int]


def following(tokenizer: Any, question: str, ends: Sequence[int]) -> Turn:
    """The turn that puts `question` after an answer, as the chat template writes it.

    Args:
        ends: tokens that end a turn (`generation_config.eos_token_id`).

    Raises:
        PromptError: nothing to ask, no chat template, or one that refuses a second question.
    """
    check_text("question", question)
    if not question.strip():
        raise PromptError("the question is empty; ask something.")
    if not getattr(tokenizer, "chat_template", None):
        raise PromptError("this tokenizer has no chat template, so how the model is shown further turns is unknown.")
    chat = [
        {"role": "user", "content": "-"},
        {"role": "assistant", "content": MARK},
        {"role": "user", "content": question},
    ]
    try:
        text = str(tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True))
    except Exception as error:  # jinja's errors, and whatever a template raises on purpose
        raise PromptError(f"the chat template refuses a second question: {error}") from error
    _, mark, tail = text.partition(MARK)
    if not mark or question.strip() not in tail:
        raise PromptError("the chat template leaves out an answer or a question, so the next turn cannot be found in it.")
    before = tail[: tail.index(question.strip())]
    ids = list(tokenizer.encode(tail, add_special_tokens=False))
    opening = tokenizer.encode(before, add_special_tokens=False)
    at = next((i for i, token in enumerate(ids[: len(opening)]) if token in ends), None)  # in the question it ends nothing
    return Turn(None, ids) if at is None else Turn(ids[at], ids[at + 1 :])
