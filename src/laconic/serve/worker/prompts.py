"""From a request to the token ids of its prompt, through the chat template; a context has to be its beginning."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from laconic.errors import MediaError
from laconic.loading import tokenizer_of
from laconic.prompts import media, text
from laconic.prompts.text import JOINT, MARK, PromptError, common
from laconic.serve.refusal import Refusal, invalid

Message = Mapping[str, Any]


@dataclass(frozen=True)
class Read:
    """What a stored context was made of.

    Attributes:
        ids: its tokens. `text`: if it ends in a text, which the question follows in the same turn of the user. `system`: the
            system message before it. `messages`: turns that are closed.
    """

    ids: list[int]
    text: str | None = None
    system: str | None = None
    messages: Sequence[Message] = ()


@dataclass
class Prepared:
    """A prompt, ready to be run.

    Attributes:
        ids: all tokens. `inputs`: pixels and the like. `visual`: how many of the tokens show images.
    """

    ids: list[int]
    inputs: dict[str, Any] = field(default_factory=dict)
    visual: int = 0


def chat(reader: Any, messages: Sequence[Message], context: Read | None = None, whole: bool = False) -> Prepared:
    """The prompt of a chat.

    Args:
        messages: ``{"role", "content": text or parts}``, the last one of the user.
        context: what the prompt has to begin with. `whole`: the messages have what it holds, too.

    Raises:
        Refusal: a template that refuses the turns, images that cannot be shown, or another beginning than the context's.
    """
    tokenizer = tokenizer_of(reader)
    if any(not isinstance(message["content"], str) for message in messages):
        if context is not None:
            raise Refusal(400, "unsupported_parameter", "a context cannot be asked about further images yet.", "messages")
        return _seen(reader, messages)
    ids = encoded(tokenizer, joined(messages, None if whole else context))
    if context is not None:
        check_begins(ids, context.ids)
    return Prepared(ids)


def joined(messages: Sequence[Message], context: Read | None) -> list[Message]:
    """Messages after those of the context."""
    if context is None:
        return list(messages)
    system = [{"role": "system", "content": context.system}] if context.system else []
    before = [*system, *context.messages]
    if context.text is None:
        return [*before, *messages]
    first = messages[0]
    if first["role"] != "user":
        raise Refusal(
            400, "context_prefix_mismatch", "the first message after a text context must be the user's.", "messages"
        )
    return [*before, {"role": "user", "content": context.text + JOINT + first["content"]}, *messages[1:]]


def encoded(tokenizer: Any, messages: Sequence[Message], opened: bool = True) -> list[int]:
    """Token ids of messages; `opened`: with the beginning of the model's answer."""
    return _tokens(tokenizer, _written(tokenizer, messages, opened))


def _tokens(tokenizer: Any, shown: str) -> list[int]:
    return list(tokenizer.encode(shown, add_special_tokens=False))


def _written(tokenizer: Any, messages: Sequence[Message], opened: bool = True) -> str:
    if not getattr(tokenizer, "chat_template", None):
        raise Refusal(400, "unsupported_parameter", "this model has no chat template; use /v1/completions.", "messages")
    try:
        return str(tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=opened))
    except Exception as error:  # jinja's errors, and whatever a template raises on purpose
        roles = [message["role"] for message in messages]
        raise invalid("messages", f"the chat template of this model refuses the turns {roles[:20]}.") from error


def cut(tokenizer: Any, messages: Sequence[Message], message: int, at: int) -> tuple[list[int], int]:
    """Token ids of messages with the beginning of the model's answer, and how many of them come before the character `at` of
    one message's content. A token that reaches beyond it does not.

    Raises:
        Refusal: the template does not show that message, or nothing before the cut.
    """
    whole = _written(tokenizer, messages)
    content = messages[message]["content"]
    marked = {**messages[message], "content": content[:at] + MARK + content[at:]}
    head, found, _ = _written(tokenizer, [*messages[:message], marked, *messages[message + 1 :]]).partition(MARK)
    ids = _tokens(tokenizer, whole)
    length = common(_tokens(tokenizer, head[: common(head, whole)]), ids)
    if not found or not length:
        raise invalid("messages", "the chat template shows nothing of this message up to its breakpoint.")
    return ids, min(length, len(ids) - 1)


def closed(tokenizer: Any, messages: Sequence[Message]) -> list[int]:
    """Token ids of turns that are over, as they stand before the user's next one."""
    ids = encoded(tokenizer, [*messages, {"role": "user", "content": "?"}])
    cut = common(encoded(tokenizer, messages, opened=False), ids)
    if not cut:
        raise invalid("messages", "the chat template writes nothing for these messages.")
    return ids[:cut]


def check_begins(ids: Sequence[int], context: Sequence[int]) -> None:
    """Refuse a prompt that does not begin with the context, or has nothing after it."""
    if len(ids) <= len(context) or list(ids[: len(context)]) != list(context):
        raise Refusal(
            400,
            "context_prefix_mismatch",
            "with these messages the chat template writes another beginning than the context's; go on with a turn of the "
            "user's, without a system message.",
            "messages",
        )


def completion(tokenizer: Any, prompt: str | Sequence[int]) -> Prepared:
    """The prompt of a plain completion: text, or token ids."""
    if isinstance(prompt, str):
        ids = text.encode(tokenizer, prompt, True)
    else:
        ids = list(prompt)
        if any(token >= len(tokenizer) for token in ids):
            raise invalid("prompt", f"prompt holds token ids beyond the vocabulary of {len(tokenizer)}.")
    if not ids:
        raise invalid("prompt", "prompt has no tokens.")
    return Prepared(ids)


def refuse_specials(tokenizer: Any, messages: Sequence[Message]) -> None:
    """Refuse messages whose text has one of the model's control tokens, which the tokenizer would read as such: text could
    end a turn and forge another."""
    added = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
    for message in messages:
        content = message["content"]
        words = [content] if isinstance(content, str) else [part["text"] for part in content if part["type"] == "text"]
        for token in sorted(added | set(tokenizer.all_special_tokens)):
            if any(token in text for text in words):
                raise invalid("messages", f"text with the control token {token!r} is refused here; leave it out.")


MAX_IMAGES, MAX_IMAGE_BYTES, MAX_PIXELS = 16, 8 * 2**20, 16_000_000


def _seen(reader: Any, messages: Sequence[Message]) -> Prepared:
    """A prompt with images: a system message and one turn of the user."""
    system = [message["content"] for message in messages if message["role"] == "system"]
    users = [message for message in messages if message["role"] == "user"]
    if reader is tokenizer_of(reader):
        raise Refusal(400, "unsupported_parameter", "this model reads no images.", "messages")
    if len(users) != 1 or len(system) + 1 != len(messages) or not all(isinstance(part, str) for part in system):
        raise Refusal(400, "unsupported_parameter", "images go into a single turn of the user's for now.", "messages")
    parts = users[0]["content"]
    images = decoded_images([part["data"] for part in parts if part["type"] == "image"])
    words = [media.PLACE if part["type"] == "image" else part["text"].replace(media.PLACE, "< image>") for part in parts]
    try:
        prompt = media.build(reader, images, "", "".join(words), system="\n".join(system) or None)
    except (MediaError, PromptError) as error:
        raise Refusal(400, "invalid_image", str(error), "messages") from None
    token = tokenizer_of(reader).convert_tokens_to_ids(reader.image_token)
    return Prepared(prompt.ids, prompt.inputs, prompt.ids.count(token))


def decoded_images(data: Sequence[str]) -> list[Any]:
    """Images from base64, within limits that are checked before anything is decoded.

    Raises:
        Refusal: too many, too large, or not an image.
    """
    from laconic.media.images import image_of

    if len(data) > MAX_IMAGES:
        raise Refusal(400, "image_too_large", f"a request shows at most {MAX_IMAGES} images.", "messages")
    found, pixels = [], 0
    for one in data:
        if len(one) > MAX_IMAGE_BYTES * 4 // 3 + 4:
            raise Refusal(400, "image_too_large", f"an image has at most {MAX_IMAGE_BYTES:,} bytes.", "messages")
        try:
            raw = base64.b64decode(one, validate=True)
        except (binascii.Error, ValueError):
            raise Refusal(400, "invalid_image", "an image is not valid base64.", "messages") from None
        try:
            image = image_of(raw, max_pixels=MAX_PIXELS - pixels)
        except MediaError as error:
            raise Refusal(400, "invalid_image", str(error), "messages") from None
        pixels += image.width * image.height
        found.append(image)
    return found
