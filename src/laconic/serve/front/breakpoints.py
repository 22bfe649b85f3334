"""Prompt-cache breakpoints: the part of a prompt up to one becomes a context, or is found again as one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from laconic.serve.config import Config
from laconic.serve.front.fields import Fields
from laconic.serve.refusal import Refusal, invalid

SECONDS = {"30m": 1800.0, "12h": 43200.0}
"""Times to live, as OpenAI's client names them."""
MAX_KEY = 1024


@dataclass(frozen=True)
class Mark:
    """A breakpoint within one content.

    Attributes:
        where: name of its part. `at`: characters before it. `ttl`: of its own, in seconds.
    """

    where: str
    at: int
    ttl: float | None


@dataclass(frozen=True)
class Breakpoint:
    """The last breakpoint of a request: after the character `mark.at` of the content of message number `message`."""

    message: int
    mark: Mark

    def context_of(self, messages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """What `laconic.serve.worker.contexts.Wanted` says of the context before it. After a text of the user's, further
        questions follow in the same turn; any other turn is over.

        Raises:
            Refusal: images, or nothing before it.
        """
        if any(not isinstance(message["content"], str) for message in messages):
            raise Refusal(400, "unsupported_parameter", "contexts hold text, not images, for now.", self.mark.where)
        before, last = list(messages[: self.message]), messages[self.message]
        text = last["content"][: self.mark.at]
        if not text.strip():
            raise invalid(self.mark.where, "there is no text before this breakpoint in its message.")
        within = {"messages": list(messages), "message": self.message, "at": self.mark.at}
        if last["role"] != "user":
            return {"text": None, "system": None, "messages": [*before, {**last, "content": text}], "within": within}
        if len(before) == 1 and before[0]["role"] == "system":
            return {"text": text, "system": before[0]["content"], "messages": [], "within": within}
        return {"text": text, "system": None, "messages": before, "within": within}

    def after(self, number: int) -> Breakpoint:
        """With so many messages put before all."""
        return replace(self, message=self.message + number)


def mark_of(inner: Fields, at: int) -> Mark:
    """A part's object `prompt_cache_breakpoint`; `at`: characters of the content up to the end of the part."""
    if inner.one_of("mode", ["explicit"]) is None:
        name = inner.name("mode")
        raise Refusal(400, "missing_required_parameter", f'{name} is required, and can only be "explicit".', name)
    ttl = inner.one_of("ttl", SECONDS)
    inner.rest()
    return Mark(inner.name("mode").removesuffix(".mode"), at, None if ttl is None else SECONDS[ttl])


def last_of(read: Iterable[tuple[dict[str, Any], Mark | None]]) -> tuple[list[dict[str, Any]], Breakpoint | None]:
    """Messages, and the last of their breakpoints."""
    messages, found = [], None
    for i, (message, mark) in enumerate(read):
        messages.append(message)
        if mark is not None:
            found = Breakpoint(i, mark)
    return messages, found


def refuse(found: Breakpoint | None) -> None:
    """Where nothing is asked, nothing follows a breakpoint."""
    if found is not None:
        raise Refusal(400, "unsupported_parameter", "breakpoints are for requests that ask something.", found.mark.where)


@dataclass(frozen=True)
class CacheOptions:
    """What a request says of all its breakpoints.

    Attributes:
        salt: part of what its contexts are: another one, another context. `ttl`: in seconds.
        given: names of the fields, which change nothing without a breakpoint.
    """

    salt: str | None
    ttl: float | None
    given: Sequence[str]

    @classmethod
    def of(cls, fields: Fields, lives: Iterable[str]) -> CacheOptions:
        """`prompt_cache_key` and `prompt_cache_options`, whose `ttl` is one of `lives`."""
        salt, options, ttl = fields.text("prompt_cache_key", MAX_KEY), fields.inner("prompt_cache_options"), None
        if options is not None:
            if options.one_of("mode", ["explicit", "implicit"]) == "implicit":
                message = "implicit breakpoints would compress a prompt unasked; mark the end of a prefix with one."
                raise Refusal(400, "unsupported_parameter", message, options.name("mode"))
            ttl = options.one_of("ttl", lives)
            options.refuse({"prewarm": False, "comparison_response_id": None})
            options.rest()
        given = [*([] if salt is None else ["prompt_cache_key"]), *([] if options is None else ["prompt_cache_options"])]
        return cls(salt, None if ttl is None else SECONDS[ttl], given)

    def life(self, config: Config, mark: Mark | None = None) -> float:
        """Seconds that a context lives after its latest use.

        Raises:
            Refusal: longer than anything lives here.
        """
        ttl = self.ttl if mark is None or mark.ttl is None else mark.ttl
        if ttl is not None and ttl > config.store.max_ttl:
            name = "prompt_cache_options.ttl" if mark is None or mark.ttl is None else f"{mark.where}.ttl"
            raise invalid(name, f"contexts live for at most {config.store.max_ttl} seconds here.")
        return float(config.store.default_ttl if ttl is None else ttl)
