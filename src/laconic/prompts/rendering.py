"""What prompts with media share: a chat template that writes them, and the tokens of what it has written."""

from __future__ import annotations

from typing import Any

from laconic.prompts.text import PromptError, common


def render(processor: Any, content: list[dict[str, str]], answer_prefix: str, system: str | None) -> str:
    """The prompt of one user's turn, whose parts are `content`, as text.

    Raises:
        PromptError: a template that refuses the turns, or takes plain text only.
    """

    def turn(role: str, text: str) -> dict[str, Any]:
        return {"role": role, "content": [{"type": "text", "text": text}]}

    chat = [turn("system", system)] if system else []
    chat.append({"role": "user", "content": content})
    chat += [turn("assistant", answer_prefix)] if answer_prefix else []
    opened = bool(answer_prefix)
    try:
        text = str(
            processor.apply_chat_template(
                chat, tokenize=False, add_generation_prompt=not opened, continue_final_message=opened
            )
        )
    except Exception as error:  # jinja's errors, and whatever a template raises on purpose
        raise PromptError(f"the chat template refuses the turns {[m['role'] for m in chat]}: {error}") from error
    if str(content) in text:  # the template printed the list itself
        raise PromptError("the chat template of this model takes plain text only; it has no support for images or sound.")
    return text


def tokens_of(processor: Any, text: str, cut: int) -> tuple[list[int], int]:
    """Token ids of the text, one for each placeholder, and how many of them come before `cut`."""
    added = specials(processor, text)
    plain, opening = (processor.tokenizer(x, add_special_tokens=added)["input_ids"] for x in (text, text[:cut]))
    return plain, common(opening, plain) if cut else 0


def specials(processor: Any, text: str) -> bool:
    """Whether the tokenizer adds its special tokens: some templates leave the first one to it."""
    opening = processor.tokenizer.bos_token
    return not (opening and text.startswith(opening))
