"""A request whose context is shortened before its prompt is made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, cast

from laconic.engine.request import Request
from laconic.errors import ProtectError
from laconic.method import Protect, Span
from laconic.prompts.text import Prompt, PromptError
from laconic.shortening.contract import PromptMethod, to_apply
from laconic.shortening.shorten import shorten


def shortened(request: Request, tokenizer: Any, prompt_of: Callable[[Request], Prompt]) -> Request:
    """The request with the text that its methods leave of the context, one method after another; they go on into the session
    only to account for it. A request without such methods stays as it is.

    Args:
        tokenizer: of the model that will answer. `prompt_of`: gives the prompt of a request.

    Raises:
        PromptError: no context, images, a prompt that is built already, or a method that needs a question which comes later.
        ProtectError: what is protected cannot be found, or cannot be followed into the shortened prompt.
    """
    methods = to_apply(request.methods)
    if not methods or request.saved is not None:  # a session refuses what comes too late for a saved context
        return request
    name = methods[0].name
    if request.prompt is not None:
        raise PromptError(f"{name} shortens the text of a context, and this prompt is built already; give context=.")
    if request.images or request.clip is not None or request.sounds:
        raise PromptError(f"{name} shortens text and does not go with images, videos or sound; leave one of them out.")
    if not request.context.strip():
        raise PromptError(f"{name} shortens a context, and there is none; give context=.")
    later, ids = request.mode == "later", prompt_of(request).ids
    protect = _as_strings(request.protect, ids, request.context, tokenizer)
    text, rest = request.context, []
    for method in request.methods or ():
        if not (isinstance(method, PromptMethod) and method.done is None):
            rest.append(method)
            continue
        if method.needs_question and later:
            raise PromptError(f"{method.name} needs the question when it shortens the context; it cannot come later.")
        own = _as_strings(method.protect, ids, request.context, tokenizer)
        here = [string for string in [*protect, *own] if string != "system" and string in text]
        question = "" if later else request.question
        done = shorten(text, replace(method, protect=()), question=question, protect=here, tokenizer=tokenizer)
        text = done.text
        rest.append(replace(method, protect=own).after(done))
    return replace(request, context=text, methods=rest, protect=protect, original=request)


def _as_strings(protect: Protect, ids: Sequence[int], context: str, tokenizer: Any) -> list[str]:
    """What is protected as strings, since tokens change their places: a range stands for the text of its tokens, cut where
    the context begins and ends.

    Raises:
        ProtectError: a range that is not in the prompt.
    """

    def text(start: int, stop: int) -> str:
        part = list(ids[start:stop])
        return str(tokenizer.decode(part, skip_special_tokens=False, clean_up_tokenization_spaces=False))

    single = isinstance(protect, str) or (len(protect) == 2 and all(isinstance(x, int) for x in protect))
    specs = cast("list[str | Span]", [protect] if single else list(protect))
    found: list[str] = []
    for spec in specs:
        if isinstance(spec, str):
            found.append(spec)
            continue
        start, stop = spec
        if not 0 <= start < stop <= len(ids):
            raise ProtectError(f"protect=({start}, {stop}) is no range of the prompt's {len(ids)} tokens.")
        whole = text(0, len(ids))
        at = max(whole.find(context.strip()), 0)
        edges = sorted({0, at, at + len(context.strip()), len(whole)})
        first, last = len(text(0, start)), len(text(0, stop))
        found += filter(None, (whole[max(first, a) : min(last, b)] for a, b in pairwise(edges)))
    return found
