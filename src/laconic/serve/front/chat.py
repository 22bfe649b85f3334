"""The body of a chat request."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

from laconic.serve.config import Config
from laconic.serve.front import breakpoints
from laconic.serve.front.asking import Ask, cut, extension, sampling_of, stops_of, streaming, target_of
from laconic.serve.front.breakpoints import Breakpoint, CacheOptions, Mark, mark_of
from laconic.serve.front.fields import Fields
from laconic.serve.job import Job
from laconic.serve.keys import Key
from laconic.serve.refusal import Refusal, invalid

IGNORED = (
    "user",
    "safety_identifier",
    "store",
    "service_tier",
    "verbosity",
    "reasoning_effort",
    "parallel_tool_calls",
    "prediction",
    "prompt_cache_retention",
)
REFUSED: dict[str, Any] = {
    "tools": [],
    "tool_choice": "none",
    "functions": [],
    "function_call": "none",
    "audio": None,
    "web_search_options": None,
    "moderation": None,
}
ROLES = ("system", "developer", "user", "assistant")
MAX_MESSAGES, MAX_PARTS = 1024, 4096


def chat_ask(body: dict[str, Any], config: Config, key: Key) -> Ask:
    """A chat request, understood.

    Raises:
        Refusal: a field that is missing, unknown, not supported, or has a value that it cannot have.
    """
    fields = Fields(body)
    target = target_of(config, key, fields.required("model"))
    top = fields.whole("top_logprobs", 0, 20)
    if fields.flag("logprobs"):
        top = top or 0
    elif top is not None:
        raise invalid("top_logprobs", "top_logprobs goes with logprobs=true.")
    most = [fields.whole(name, 1, 2**31) for name in ("max_completion_tokens", "max_tokens")]
    response_format(fields)
    if fields.raw("modalities") not in (None, ["text"]):
        raise Refusal(400, "unsupported_parameter", 'modalities can only be ["text"].', "modalities")
    messages, breakpoint = _messages(fields.raw("messages"), "messages")
    job = Job(
        id=f"chatcmpl-{uuid.uuid4().hex}",
        messages=messages,
        sampling=sampling_of(fields),
        n=fields.whole("n", 1, target.model.max_batch) or 1,
        max_tokens=min((x for x in most if x is not None), default=None),
        stop=stops_of(fields),
        top_logprobs=top,
    )
    ask = Ask(target, job, metadata=fields.labels("metadata") or None)
    streaming(fields, ask)
    ask = extension(fields, config, ask, config.limits.deadline_s)
    cut(ask, breakpoint, CacheOptions.of(fields, ["30m"]), config)
    fields.refuse(REFUSED)
    ask.ignored += fields.ignore(IGNORED) + fields.rest(config.server.lenient)
    return ask


def response_format(fields: Fields) -> None:
    """Only plain text."""
    inner = fields.inner("response_format")
    if inner is not None and inner.raw("type") != "text":
        raise Refusal(400, "unsupported_parameter", 'response_format can only be {"type": "text"}.', "response_format")


def messages_of(given: Any, param: str) -> list[dict[str, Any]]:
    """Messages with contents as the worker takes them.

    Raises:
        Refusal: none, too many, or one of another shape; a breakpoint.
    """
    messages, breakpoint = _messages(given, param)
    breakpoints.refuse(breakpoint)
    return messages


def _messages(given: Any, param: str) -> tuple[list[dict[str, Any]], Breakpoint | None]:
    if given is None:
        raise Refusal(400, "missing_required_parameter", f"{param} is required.", param)
    if not isinstance(given, list) or not 0 < len(given) <= MAX_MESSAGES:
        raise invalid(param, f"{param} must be a list of 1 to {MAX_MESSAGES:,} messages.")
    return breakpoints.last_of(_message(one, f"{param}[{i}]") for i, one in enumerate(given))


def _message(given: Any, where: str) -> tuple[dict[str, Any], Mark | None]:
    if not isinstance(given, dict):
        raise invalid(where, f"{where} must be an object with role and content.")
    fields = Fields(given, where)
    role = fields.raw("role")
    if role in ("tool", "function"):
        raise Refusal(400, "unsupported_parameter", f"messages of the role {role} are not supported.", f"{where}.role")
    if role not in ROLES:
        raise invalid(f"{where}.role", f"{where}.role must be one of {', '.join(ROLES)}.")
    fields.refuse({"tool_calls": [], "function_call": None, "audio": None})
    fields.ignore(["name", "refusal", "annotations"])
    content, mark = content_of(fields.raw("content"), f"{where}.content", _part)
    fields.rest()
    return {"role": "system" if role == "developer" else role, "content": content}, mark


def content_of(
    given: Any, where: str, part: Callable[[Fields, Any, str], dict[str, str]]
) -> tuple[str | list[dict[str, str]], Mark | None]:
    """A text, or parts; parts that are all text become one. And the last breakpoint in it.

    Args:
        part: reads one, of the type that it is given.
    """
    if isinstance(given, str):
        return given, None
    if not isinstance(given, list) or not 0 < len(given) <= MAX_PARTS:
        raise invalid(where, f"{where} must be a text or a list of parts.")
    parts: list[dict[str, str]] = []
    length, last = 0, None
    for i, one in enumerate(given):
        if not isinstance(one, dict):
            raise invalid(f"{where}[{i}]", f"{where}[{i}] must be an object with a type.")
        fields = Fields(one, f"{where}[{i}]")
        marked = fields.inner("prompt_cache_breakpoint")
        parts.append(part(fields, fields.raw("type"), f"{where}[{i}]"))
        length += len(parts[-1].get("text", ""))
        last = last if marked is None else mark_of(marked, length)
    if all(one["type"] == "text" for one in parts):
        return "".join(one["text"] for one in parts), last
    return parts, last


def _part(fields: Fields, kind: Any, where: str) -> dict[str, str]:
    if kind == "text":
        text = fields.required("text")
        fields.rest()
        return {"type": "text", "text": text}
    if kind == "image_url":
        inner = fields.inner("image_url") or Fields({}, f"{where}.image_url")
        inner.ignore(["detail"])
        data = data_of(inner.required("url"), f"{where}.image_url.url")
        inner.rest()
        fields.rest()
        return {"type": "image", "data": data}
    if kind in ("file", "input_audio", "refusal"):
        raise Refusal(400, "unsupported_parameter", f"parts of the type {kind} are not supported.", f"{where}.type")
    raise invalid(f"{where}.type", f"{where}.type must be text or image_url.")


def data_of(url: str, where: str) -> str:
    """The base64 of a ``data:`` URL of an image. Nothing is ever fetched.

    Raises:
        Refusal: any other URL.
    """
    head, comma, data = url.partition(",")
    if not head.startswith("data:"):
        raise Refusal(400, "image_url_not_allowed", "images come as data: URLs; nothing is fetched.", where)
    if not comma or not head.startswith("data:image/") or not head.endswith(";base64"):
        raise Refusal(400, "invalid_image", "an image's URL must begin with data:image/...;base64,", where)
    return data
