"""From images and text to a model's inputs, through its processor's chat template, cut exactly after the context."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from PIL import Image
from transformers import PreTrainedModel

from laconic.errors import MediaError
from laconic.prompts.clip import Clip
from laconic.prompts.rendering import render, specials, tokens_of
from laconic.prompts.text import JOINT, MARK, Prompt, PromptError, check_text

PLACE = "<image>"
"""Where it stands in context or question, an image is shown; without it all images come before the text."""


def build(
    processor: Any,
    images: Sequence[Image.Image],
    context: str,
    question: str = "",
    *,
    clip: Clip | None = None,
    answer_prefix: str = "",
    system: str | None = None,
) -> Prompt:
    """Build the prompt of one question about images, a video and a context.

    Args:
        processor: of the model.
        images: upright, RGB, in the order in which the prompt shows them.
        context, question: text; one of them may be empty. `PLACE`, or the model's own placeholder, says where each image
            stands.
        clip: a video, for the model's own video input; it comes after the images, before the text.
        answer_prefix: opens the answer. `system`: text of the system turn.

    Returns:
        the prompt; its context ends after the context's text and after the last image.

    Raises:
        MediaError: images and their places do not match, or the processor refuses the images.
        PromptError: nothing to ask, no chat template, or one that cannot show images.
    """
    places = _rendered(processor, len(images), context, question, answer_prefix, system, clip is not None)
    return _encoded(processor, images, clip, *places)


def reads_videos(model: PreTrainedModel, processor: Any) -> bool:
    """Whether a model has a video input of its own, and its processor one for it. InternVL, whose frames are images to the
    model, has none."""
    named = getattr(model.config, "video_token_id", None) is not None and hasattr(processor, "video_token")
    return named and getattr(processor, "video_processor", None) is not None


def continued(
    processor: Any,
    ids: Sequence[int],
    images: int,
    context: str,
    question: str,
    *,
    answer_prefix: str = "",
    system: str | None = None,
) -> Prompt:
    """The prompt of another question about a context that has been read; its images are not needed again.

    Args:
        ids: the context's. `images`: how many it shows. All others as for `build`.

    Raises:
        PromptError: the template or the tokenizer makes another context of the same text.
    """
    text, cut = _rendered(processor, images, context, question, answer_prefix, system)
    plain, at = tokens_of(processor, text, cut)
    placeholder = processor.tokenizer.convert_tokens_to_ids(processor.image_token)
    places = [i for i, token in enumerate(plain[:at]) if token == placeholder]
    opening, closing = (places[0], at - places[-1] - 1) if places else (at, at)
    if plain[:opening] != list(ids[:opening]) or plain[at - closing : at] != list(ids[len(ids) - closing :]):
        raise PromptError("this processor puts other tokens around the context than when it was read; use the one of then.")
    return Prompt(list(ids), plain[at:], True, text, opening=opening)


def _rendered(
    processor: Any,
    images: int,
    context: str,
    question: str,
    answer_prefix: str,
    system: str | None,
    video: bool = False,
) -> tuple[str, int]:
    """The whole prompt as text, with one placeholder per image and one for the video, and where in it the context ends."""
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
    text = render(processor, _content(context + joint + question, token, images, video), answer_prefix, system)
    if images and token not in text:
        raise PromptError(
            "the chat template of this model has no place for images. A model made for videos alone takes a --video of two "
            "frames or more; else check that the processor belongs to the model."
        )
    if text.count(token) != images:
        raise PromptError(
            f"the chat template of this model wrote {text.count(token)} places for {images} images: it does not "
            "show images that way. Check that the processor belongs to the model."
        )
    if video and text.count(processor.video_token) != 1:
        raise PromptError(
            f"the chat template of this model wrote {text.count(processor.video_token)} places for the video: it does not "
            "show videos that way. Show the frames as images instead (--as-images)."
        )
    cut = text.rindex(token) + len(token) if images else 0
    if video:
        cut = max(cut, text.rindex(processor.video_token) + len(processor.video_token))
    if context:
        content = _content(context + MARK + joint + question, token, images, video)
        marked = render(processor, content, answer_prefix, system)
        head, _, tail = marked.partition(MARK)
        if head + tail != text:
            raise PromptError("the chat template changes the user's text, so the end of the context cannot be found in it.")
        cut = max(cut, len(head))
    return text, cut


def _content(body: str, token: str, images: int, video: bool) -> list[dict[str, str]]:
    """A user's turn as the parts of a message: images where the text has places for them, else all at the front, and the
    video after those."""
    parts = re.split(f"{re.escape(PLACE)}|{re.escape(token)}", body)
    places = len(parts) - 1
    if places and places != images:
        raise MediaError(
            f"the text has {places} place{'s' * (places > 1)} for images ({PLACE}), and {images} "
            f"{'was' if images == 1 else 'were'} given; give as many, or write no place: images then come first."
        )
    image = {"type": "image"}
    film = [{"type": "video"}] if video else []
    if not places:
        return [dict(image) for _ in range(images)] + film + [{"type": "text", "text": body}]
    content: list[dict[str, str]] = film
    for i, part in enumerate(parts):
        content += [dict(image)] if i else []
        content += [{"type": "text", "text": part}] if part else []
    return content


def _encoded(processor: Any, images: Sequence[Image.Image], clip: Clip | None, text: str, cut: int) -> Prompt:
    """Ids and pixels, the text up to `cut` its context.

    A processor replaces each placeholder by as many as the image needs. All of them lie before the cut, so what comes
    after it has the same tokens either way.
    """
    row = [list(images)] if images else None  # the images of one prompt: LLaVA-OneVision crops an image only if it is alone
    try:
        options = {"add_special_tokens": specials(processor, text), "return_tensors": "pt", "padding": False}
        if clip is not None:
            options |= {"videos": [list(clip.frames)], "video_metadata": [clip.metadata()], "do_sample_frames": False}
        found = processor(images=row, text=[text], **options)
    except Exception as error:  # whatever an image processor raises for an image's size
        what = "images" if clip is None else "images or the video" if images else "video"
        raise MediaError(f"{type(processor).__name__} refuses the {what}: {error}") from error
    ids = found.pop("input_ids")[0].tolist()
    found.pop("attention_mask", None)
    plain, start = tokens_of(processor, text, cut)
    after = len(plain) - start
    at = len(ids) - after
    if ids[at:] != plain[len(plain) - after :]:
        raise PromptError(f"{type(processor).__name__} changes the text after the images; the question cannot be found.")
    opening = ids.index(processor.tokenizer.convert_tokens_to_ids(processor.image_token)) if images else 0
    return Prompt(ids[:at], ids[at:], True, text, dict(found), opening)
