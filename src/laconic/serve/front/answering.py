"""`/v1/chat/completions` and `/v1/completions`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from laconic.serve.config import Config
from laconic.serve.front.answers import Running, Shape, fingerprint, respond
from laconic.serve.front.asking import Ask
from laconic.serve.front.chat import chat_ask
from laconic.serve.front.completions import completion_ask
from laconic.serve.front.house import body_of, house_of, key_of
from laconic.serve.front.records import Record
from laconic.serve.front.shapes import ChatShape, CompletionShape
from laconic.serve.keys import Key

router = APIRouter()


@router.post("/v1/chat/completions")
async def chat_completions(request: Request) -> Response:
    return await _answered(request, chat_ask, ChatShape)


@router.post("/v1/completions")
async def completions(request: Request) -> Response:
    return await _answered(request, completion_ask, CompletionShape)


async def _answered(
    request: Request, asked: Callable[[dict[str, Any], Config, Key], Ask], shape: type[ChatShape]
) -> Response:
    house = house_of(request)
    house.check_open()
    body = await body_of(request)
    ask = asked(body, house.config, key_of(request))
    mark = fingerprint(house.schedulers[ask.target.model.name])
    return await run(request, ask, shape(ask.job.id, str(body["model"]), mark, ask.job.top_logprobs is not None))


async def run(request: Request, ask: Ask, shape: Shape) -> Response:
    """Put a request into its model's queue, and answer it in this shape."""
    house, key = house_of(request), key_of(request)
    scheduler = house.schedulers[ask.target.model.name]
    most = house.config.limits_of(key.name).max_inflight or 1

    async def find() -> tuple[Record, bool]:
        model, seconds = ask.target.model.name, ask.job.seconds
        if ask.cut is not None:
            return await house.contexts.cut(key, model, ask.cut, ask.life, ask.wait, seconds)
        assert ask.context is not None
        return await house.contexts.asked(key, ask.context, model, ask.wait, seconds), False

    given = find if ask.cut is not None or ask.context is not None else None
    running = Running(scheduler, ask, key.name, most, house.config.limits.undelivered, request.state.record, given)
    return await respond(request, house.config, running, shape)
