"""From images and text to a model's inputs, through its processor's chat template, cut exactly after the context."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from PIL import Image

from laconic.errors import MediaError
from laconic.prompts.text import JOINT, MARK, Prompt, PromptError, check_text, common

PLACE = "<image>"
"""Where it stands in context or question, an image is shown; without it all images come before the text."""


def build(
    processor: Any,
    images: Sequence[Image.Image],
    context: str,
    question: str = "",
    *,
    answer_prefix: str = "",
    system: str | None = None,
) -> Prompt:
    """Build the prompt of one question about images and a context.

    Args:
        processor: of the model.
        images: upright, RGB, in the order in which the prompt shows them.
        context, question: text; one of them may be empty. `PLACE`, or the model's own placeholder, says where each image
            stands.
        answer_prefix: opens the answer. `system`: text of the system turn.

    Returns:
        the prompt; its context ends after the context's text and after the last image.

    Raises:
        MediaError: images and their places do not match, or the processor refuses the images.
        PromptError: nothing to ask, no chat template, or one that cannot show images.
    """
    given = {"context": context, "question": question, "answer prefix": answer_prefix, "system message": system or ""}
    for name, text in given.items():
        check_text(name, text)
    if not context.strip() and not question.strip():
        raise PromptError("the prompt is empty; give a context, a question, or both.")
    if not getattr(processor, "chat_template", None):
        raise PromptError(f"{type(processor).__name__} has no chat template, so how this model is shown images is unknown.")
    token = processor.image_token
    joint = JOINT if context and question else ""
    if not question:
        context = context.rstrip()  # a template may do the same, and the end of the context would then not be found
    text = _render(processor, _content(context + joint + question, token, len(images)), answer_prefix, system)
    if text.count(token) != len(images):
        raise PromptError(
            f"the chat template of this model wrote {text.count(token)} places for {len(images)} images: it does not "
            "show images that way. Check that the processor belongs to the model."
        )
    cut = text.rindex(token) + len(token) if images else 0
    if context:
        marked = _render(processor, _content(context + MARK + joint + question, token, len(images)), answer_prefix, system)
        head, _, tail = marked.partition(MARK)
        if head + tail != text:
            raise PromptError("the chat template changes the user's text, so the end of the context cannot be found in it.")
        cut = max(cut, len(head))
    return _encoded(processor, images, text, cut)


def _content(body: str, token: str, images: int) -> list[dict[str, str]]:
    """A user's turn as the parts of a message: images where the text has places for them, else all at the front."""
    parts = re.split(f"{re.escape(PLACE)}|{re.escape(token)}", body)
    places = len(parts) - 1
    if places and places != images:
        raise MediaError(
            f"the text has {places} place{'s' * (places > 1)} for images ({PLACE}), and {images} "
            f"{'was' if images == 1 else 'were'} given; give as many, or write no place: images then come first."
        )
    image = {"type": "image"}
    if not places:
        return [dict(image) for _ in range(images)] + [{"type": "text", "text": body}]
    content: list[dict[str, str]] = []
    for i, part in enumerate(parts):
        content += [dict(image)] if i else []
        content += [{"type": "text", "text": part}] if part else []
    return content


def _render(processor: Any, content: list[dict[str, str]], answer_prefix: str, system: str | None) -> str:
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
        raise PromptError("the chat template of this model takes plain text only; it has no support for images.")
    return text


def _encoded(processor: Any, images: Sequence[Image.Image], text: str, cut: int) -> Prompt:
    """Ids and pixels, the text up to `cut` its context.

    A processor replaces each placeholder by as many as the image needs. All of them lie before the cut, so what comes
    after it has the same tokens either way.
    """
    tokenizer = processor.tokenizer
    row = [list(images)] if images else None  # the images of one prompt: LLaVA-OneVision crops an image only if it is alone
    specials = not (tokenizer.bos_token and text.startswith(tokenizer.bos_token))  # some templates leave it to the tokenizer
    try:
        found = processor(images=row, text=[text], add_special_tokens=specials, return_tensors="pt", padding=False)
    except Exception as error:  # whatever an image processor raises for an image's size
        raise MediaError(f"{type(processor).__name__} refuses the images: {error}") from error
    ids = found.pop("input_ids")[0].tolist()
    found.pop("attention_mask", None)
    plain, opening = (tokenizer(part, add_special_tokens=specials)["input_ids"] for part in (text, text[:cut]))
    after = len(plain) - common(opening, plain) if cut else len(plain)
    at = len(ids) - after
    if ids[at:] != plain[len(plain) - after :]:
        raise PromptError(f"{type(processor).__name__} changes the text after the images; the question cannot be found.")
    return Prompt(ids[:at], ids[at:], True, text, dict(found))
