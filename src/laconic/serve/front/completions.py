"""The body of a plain completion request."""

from __future__ import annotations

import uuid
from typing import Any

from laconic.serve.config import Config
from laconic.serve.front.asking import Ask, extension, sampling_of, stops_of, streaming, target_of
from laconic.serve.front.fields import Fields
from laconic.serve.job import Job
from laconic.serve.keys import Key
from laconic.serve.refusal import Refusal, invalid

DEFAULT_TOKENS = 16
"""Longest answer where a request does not say, as in OpenAI's API."""
REFUSED: dict[str, Any] = {"suffix": None, "echo": False, "best_of": 1}


def completion_ask(body: dict[str, Any], config: Config, key: Key) -> Ask:
    """A completion request, understood.

    Raises:
        Refusal: a field that is missing, unknown, not supported, or has a value that it cannot have.
    """
    fields = Fields(body)
    target = target_of(config, key, fields.required("model"))
    job = Job(
        id=f"cmpl-{uuid.uuid4().hex}",
        prompt=_prompt(fields.raw("prompt")),
        sampling=sampling_of(fields),
        n=fields.whole("n", 1, target.model.max_batch) or 1,
        max_tokens=fields.whole("max_tokens", 1, 2**31) or DEFAULT_TOKENS,
        stop=stops_of(fields),
        top_logprobs=fields.whole("logprobs", 0, 5),
    )
    ask = Ask(target, job)
    streaming(fields, ask)
    ask = extension(fields, config, ask, config.limits.deadline_s)
    if ask.context is not None:
        raise Refusal(400, "unsupported_parameter", "contexts are asked through /v1/chat/completions.", "laconic.context")
    fields.refuse(REFUSED)
    ask.ignored += fields.ignore(["user"]) + fields.rest(config.server.lenient)
    return ask


def _prompt(given: Any) -> str | list[int]:
    """One text, or the token ids of one."""
    if given is None:
        raise Refusal(400, "missing_required_parameter", "prompt is required.", "prompt")
    if isinstance(given, list) and len(given) == 1 and isinstance(given[0], (str, list)):
        given = given[0]
    if isinstance(given, str) and given:
        return given
    if (
        isinstance(given, list)
        and given
        and all(isinstance(x, int) and not isinstance(x, bool) and 0 <= x < 2**31 for x in given)
    ):
        return list(given)
    raise invalid("prompt", "prompt must be one text, or the token ids of one.")
