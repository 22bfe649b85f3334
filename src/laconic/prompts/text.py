"""From a context and a question to token ids: through the chat template when there is one, cut exactly after the context.

The whole prompt is rendered and tokenised once, so runs with the question in view and later see the same ids; the cut only
says how many of them may be read (and compressed) before the question is known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from laconic.errors import LaconicError

JOINT = "\n\nQuestion: "
"""Between context and question inside the user's turn; the testbed models were trained on it."""
PLAIN_ANSWER = "\nAnswer:"
"""Opens the answer for tokenizers without a chat template."""


MARK = "\u2402laconic\u2402"
"""Stands in for the user's text while the template's own text around it is determined."""


class PromptError(LaconicError, ValueError):
    """A prompt that cannot be built."""


@dataclass(frozen=True)
class Prompt:
    """A prompt in two parts.

    Attributes:
        context: ids of everything up to the end of the context: template opening, system turn, context.
        question: ids of the rest: question, template closing, answer prefix.
        templated: the chat template was applied.
        text: the whole prompt as text.
        inputs: what the model gets besides the ids: the pixels of images, their sizes and the like.
        opening: how many of the first ids of `context` come before the text itself: the template's, system turn, history.
    """

    context: list[int]
    question: list[int]
    templated: bool
    text: str
    inputs: dict[str, Any] = field(default_factory=dict)
    opening: int = 0

    @property
    def ids(self) -> list[int]:
        """The whole prompt."""
        return self.context + self.question

    @property
    def tokens(self) -> int:
        """Length of the whole prompt."""
        return len(self.context) + len(self.question)


def build(
    tokenizer: Any,
    context: str,
    question: str = "",
    *,
    answer_prefix: str = "",
    system: str | None = None,
    history: Sequence[Mapping[str, str]] = (),
) -> Prompt:
    """Build the prompt of one question about one context.

    Args:
        tokenizer: of the model; its chat template is always applied when it has one, else the prompt is
            ``context + "\\n\\nQuestion: " + question + "\\nAnswer:"``.
        context, question: text; one of them may be empty.
        answer_prefix: opens the answer (RULER's answer prefix), so the model continues from there.
        system: text of the system turn.
        history: earlier turns of user and assistant, ``{"role": ..., "content": text}``; they belong to the context.

    Raises:
        PromptError: nothing to ask, no chat template for earlier turns, or one that refuses the turns.
    """
    given = {"context": context, "question": question, "answer prefix": answer_prefix, "system message": system or ""}
    for name, text in given.items():
        check_text(name, text)
    if not context.strip() and not question.strip():
        raise PromptError("the prompt is empty; give a context, a question, or both.")
    body = context + JOINT + question if context and question else context or question
    templated = bool(getattr(tokenizer, "chat_template", None))
    if templated:
        opening_turns = [{"role": "system", "content": system}] if system else []
        opening_turns += [dict(turn) for turn in history]
        text = _render(tokenizer, body, answer_prefix, opening_turns)
        at, end = _locate(tokenizer, text, body, answer_prefix, opening_turns)
    elif history:
        raise PromptError("this tokenizer has no chat template, so how the model is shown earlier turns is unknown.")
    else:
        head = f"{system}\n\n" if system else ""
        tail = (PLAIN_ANSWER if question else "") + (f" {answer_prefix}" if answer_prefix else "")
        text, at, end = head + body + tail, len(head), len(head + body)
    ids = encode(tokenizer, text, not templated)
    opening = text[: min(at + len(context), end)]
    cut = common(encode(tokenizer, opening, not templated), ids) if context or history else 0
    before = common(encode(tokenizer, text[:at], not templated), ids) if cut else 0
    return Prompt(ids[:cut], ids[cut:], templated, text, opening=min(before, cut))


def _render(tokenizer: Any, body: str, answer_prefix: str, opening_turns: list[dict[str, str]]) -> str:
    chat = [*opening_turns, {"role": "user", "content": body}]
    if answer_prefix:
        chat.append({"role": "assistant", "content": answer_prefix})
    opened = bool(answer_prefix)
    try:
        return str(
            tokenizer.apply_chat_template(
                chat, tokenize=False, add_generation_prompt=not opened, continue_final_message=opened
            )
        )
    except Exception as error:  # jinja's errors, and whatever a template raises on purpose
        raise PromptError(f"the chat template refuses the turns {[m['role'] for m in chat]}: {error}") from error


def _locate(
    tokenizer: Any, text: str, body: str, answer_prefix: str, opening_turns: list[dict[str, str]]
) -> tuple[int, int]:
    """Where `body` begins and ends in the rendered text; earlier by what a template has stripped from its front."""
    head, _, tail = _render(tokenizer, MARK, answer_prefix, opening_turns).partition(MARK)
    shown = text[len(head) : len(text) - len(tail)]
    if text != head + shown + tail or shown not in (body, body.strip(), body.lstrip(), body.rstrip()):
        raise PromptError("the chat template changes the user's text, so the end of the context cannot be found in it.")
    stripped = shown != body and shown != body.rstrip()
    return len(head) - (len(body) - len(body.lstrip()) if stripped else 0), len(head) + len(shown)


def encode(tokenizer: Any, text: str, specials: bool) -> list[int]:
    """Token ids of a prompt; a template writes its own special tokens, plain text (`specials`) gets the tokenizer's opening
    ones."""
    ids = list(tokenizer.encode(text, add_special_tokens=specials))
    if specials and len(ids) > 1 and ids[-1] == tokenizer.eos_token_id and ids[0] != ids[-1]:
        ids.pop()  # a closing token would end the text before the answer
    return ids


def common(a: Sequence[Any], b: Sequence[Any]) -> int:
    """Length of the common beginning: a token that reaches over the end of the context belongs to the question."""
    for i, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return i
    return min(len(a), len(b))


def check_text(name: str, text: str) -> None:
    """Refuse what no tokenizer can encode."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise PromptError(f"the {name} is not valid text: character {error.start} is a lone surrogate.") from error
