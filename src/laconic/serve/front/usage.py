"""What a request used, never overstated: tokens of the original prompt, what was not run again, and what was measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def usage(figures: Mapping[str, Any]) -> dict[str, Any]:
    """The `usage` of a chat or a completion.

    Args:
        figures: see `laconic.serve.front.answers.Running.figures`.
    """
    prompt, completion = figures["prompt_tokens"], figures["completion_tokens"]
    cached, written = figures["cached_tokens"], figures["cache_write_tokens"]
    assert cached + written <= prompt and figures["kept_tokens"] <= prompt + 1e-6
    details: dict[str, Any] = {"cached_tokens": cached, "cache_write_tokens": written}
    measured = {
        "original_tokens": prompt,
        "kept_tokens": round(figures["kept_tokens"], 2),
        "kv_bytes": figures["kv_bytes"],
        "kv_bytes_full": figures["kv_bytes_full"],
    }
    if figures["image_tokens"]:
        details["image_tokens"] = figures["image_tokens"]
        measured["visual_kept"] = round(figures["visual_kept"], 2)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": details,
        "completion_tokens_details": {"reasoning_tokens": 0},
        "laconic": measured,
    }


def report(figures: Mapping[str, Any], context: str | None, cache: str, ignored: list[str]) -> dict[str, Any]:
    """The object `laconic` of an answer.

    Args:
        context: id of the one that was asked. `cache`: "hit", "write" or "none".
        ignored: fields that were given and change nothing.
    """
    return {
        "context": context,
        "cache": cache,
        "method": "+".join(figures["methods"]) or None,
        "asked": figures["asked"],
        "achieved": round(figures["achieved"], 6),
        "original_tokens": figures["prompt_tokens"],
        "kept_tokens": round(figures["kept_tokens"], 2),
        "kv_bytes": figures["kv_bytes"],
        "kv_bytes_full": figures["kv_bytes_full"],
        "seconds": {name: round(value, 4) for name, value in figures["seconds"].items()},
        "batch": figures["batch"],
        "ignored": ignored,
        "warnings": figures["warnings"],
    }
