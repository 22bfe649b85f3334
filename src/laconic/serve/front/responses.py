"""The body of a request to the Responses API: items become messages, and a compaction the context that it stands for."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any

from laconic.serve.config import Config
from laconic.serve.front import breakpoints
from laconic.serve.front.asking import Ask, cut, extension, target_of
from laconic.serve.front.breakpoints import Breakpoint, CacheOptions, Mark
from laconic.serve.front.chat import MAX_MESSAGES, ROLES, content_of, data_of
from laconic.serve.front.fields import Fields
from laconic.serve.job import Job
from laconic.serve.keys import Key
from laconic.serve.refusal import Refusal, invalid

IGNORED = ("user", "safety_identifier", "store", "service_tier", "parallel_tool_calls", "include", "reasoning")
REFUSED: dict[str, Any] = {
    "previous_response_id": None,
    "conversation": None,
    "background": False,
    "prompt": None,
    "tools": [],
    "tool_choice": "none",
    "max_tool_calls": None,
    "context_management": [],
    "truncation": "disabled",
    "stream_options": None,
}
LIVES = ("30m", "12h")
"""What `prompt_cache_options.ttl` can be."""


@dataclass
class Items:
    """What `input` holds: messages, their last breakpoint, and, if it begins with a compaction, its reference."""

    messages: list[dict[str, Any]]
    compaction: str | None = None
    breakpoint: Breakpoint | None = None


def response_ask(body: dict[str, Any], config: Config, key: Key) -> tuple[Ask, Items]:
    """A request, understood; the context of a compaction is still to be found.

    Raises:
        Refusal: a field that is missing, unknown, not supported, or has a value that it cannot have.
    """
    fields = Fields(body)
    target = target_of(config, key, fields.required("model"))
    items = items_of(fields)
    text = fields.inner("text")
    if text is not None:
        kind = text.inner("format")
        if kind is not None and kind.raw("type") != "text":
            raise Refusal(400, "unsupported_parameter", 'text.format can only be {"type": "text"}.', "text.format")
        text.ignore(["verbosity"])
        text.rest()
    top = fields.whole("top_logprobs", 0, 20)
    if top:
        raise Refusal(400, "unsupported_parameter", "top_logprobs is for /v1/chat/completions.", "top_logprobs")
    job = Job(
        id=f"resp_{uuid.uuid4().hex}",
        messages=items.messages,
        sampling={
            "temperature": fields.number("temperature", 0, 2, 1.0),
            "top_p": fields.number("top_p", 0, 1, 1.0) or 1e-9,
        },
        max_tokens=fields.whole("max_output_tokens", 1, 2**31),
    )
    ask = Ask(target, job, metadata=fields.labels("metadata"), stream=fields.flag("stream"))
    ask = extension(fields, config, ask, config.limits.deadline_s)
    if items.compaction is not None:
        if ask.context is not None or ask.job.compress is not None:
            raise invalid("laconic", "a compaction is a context already; name no other one, and no compression.")
        if items.breakpoint is not None:
            raise invalid(items.breakpoint.mark.where, "a compaction is a context already; leave the breakpoint out.")
    cut(ask, items.breakpoint, CacheOptions.of(fields, LIVES), config)
    fields.refuse(REFUSED)
    ask.ignored += fields.ignore(IGNORED) + fields.rest(config.server.lenient)
    return ask, items


def items_of(fields: Fields, asks: bool = True) -> Items:
    """`instructions` and `input` as messages.

    Args:
        asks: the last message has to be somebody's to answer; else there has to be something to compact.

    Raises:
        Refusal: none, too many, or one of another shape.
    """
    instructions, given = fields.text("instructions"), fields.raw("input")
    if given is None:
        raise Refusal(400, "missing_required_parameter", "input is required.", "input")
    listed = [{"role": "user", "content": given}] if isinstance(given, str) else given
    if not isinstance(listed, list) or not 0 < len(listed) <= MAX_MESSAGES:
        raise invalid("input", f"input must be a text or a list of 1 to {MAX_MESSAGES:,} items.")
    compaction = None
    if isinstance(listed[0], dict) and listed[0].get("type") == "compaction":
        head = Fields(listed[0], "input[0]")
        head.ignore(["type", "id", "created_by"])
        compaction = head.required("encrypted_content")
        head.rest()
        listed = listed[1:]
    read = [_message(item, f"input[{i}]") for i, item in enumerate(listed, 0 if compaction is None else 1)]
    messages, breakpoint = breakpoints.last_of(read)
    if instructions:
        if compaction is not None:
            raise invalid("instructions", "instructions stand before the compaction; give them when it is made.")
        messages.insert(0, {"role": "system", "content": instructions})
        breakpoint = None if breakpoint is None else breakpoint.after(1)
    if not asks:
        breakpoints.refuse(breakpoint)
    if asks and not messages:
        raise invalid("input", "nothing comes after the compaction; ask something.")
    return Items(messages, compaction, breakpoint)


def _message(given: Any, where: str) -> tuple[dict[str, Any], Mark | None]:
    if not isinstance(given, dict):
        raise invalid(where, f"{where} must be an object.")
    fields = Fields(given, where)
    kind = fields.raw("type")
    if kind == "compaction":
        raise invalid(where, "a compaction must be the first item.")
    if kind not in (None, "message"):
        raise Refusal(400, "unsupported_parameter", "items of this type are not supported.", f"{where}.type")
    role = fields.raw("role")
    if role not in ROLES:
        raise invalid(f"{where}.role", f"{where}.role must be one of {', '.join(ROLES)}.")
    fields.ignore(["id", "status", "phase"])
    content = fields.raw("content")
    fields.rest()
    role = "system" if role == "developer" else role
    content, mark = content_of(content, f"{where}.content", _part)
    return {"role": role, "content": content}, mark


def _part(fields: Fields, kind: Any, where: str) -> dict[str, str]:
    if kind in ("input_text", "output_text", "text"):
        text = fields.required("text")
        fields.ignore(["annotations", "logprobs"])
        fields.rest()
        return {"type": "text", "text": text}
    if kind == "input_image":
        fields.ignore(["detail"])
        fields.refuse({"file_id": None})
        data = data_of(fields.required("image_url"), f"{where}.image_url")
        fields.rest()
        return {"type": "image", "data": data}
    raise Refusal(400, "unsupported_parameter", "parts of this type are not supported.", f"{where}.type")
