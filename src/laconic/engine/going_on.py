"""A saved context, and more after it: what comes later is read in a pass of its own, and compressed together with what the
context has kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from laconic.cache.saved import SavedContext
from laconic.engine.context import Context, check_askable
from laconic.engine.generation import opened, read_context
from laconic.engine.request import Request
from laconic.prompts.text import PromptError
from laconic.session import Session

if TYPE_CHECKING:
    from laconic.engine.engine import Engine


def go_on(engine: Engine, saved: SavedContext, request: Request) -> Context:
    """Read what comes after a saved context. The budget is that of both; the saved context stays as it is.

    It is another context than both read at once: a method has chosen what stays of the first part before it saw the second.

    Args:
        request: its `prompt` has the ids of both as its context; `methods`: those of the saved context; `protect`: spans of
            both. What the first part has lost already cannot be protected any more.

    Raises:
        PromptError: the prompt has nothing after the saved context, or begins with other tokens.
        LaconicError: methods or protected spans that do not fit.
    """
    ids = [] if request.prompt is None else request.prompt.context
    before = [] if saved.input_ids is None else saved.input_ids[0].tolist()
    if not before or ids[: len(before)] != before or len(ids) == len(before):
        raise PromptError(f"{saved.path}: give a prompt that begins with the saved context's token ids and goes on.")
    check_askable(request.methods or ())
    session = Session(engine.model, request.methods or (), request.protect, engine.tokenizer, request.count_flops)
    with opened(session) as (_, notes):
        cache = saved.cache()
        cache.ids = torch.tensor([before], device=engine.model.device)  # what is protected is looked for in all tokens
        cache.ids_valid = torch.ones_like(cache.ids, dtype=torch.bool)
        read_context(session, ids[len(before) :], request.chunk, cache=cache)
        cache.settle()
        stats = session.stats
    return Context(engine.reader, session, request, saved.images, ids, cache, stats, notes)
