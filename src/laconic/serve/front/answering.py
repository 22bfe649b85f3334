"""`/v1/chat/completions` and `/v1/completions`."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from laconic.serve.front.answers import Running, Shape, fingerprint, respond
from laconic.serve.front.asking import Ask
from laconic.serve.front.chat import chat_ask
from laconic.serve.front.completions import completion_ask
from laconic.serve.front.house import body_of, house_of, key_of
from laconic.serve.front.shapes import ChatShape, CompletionShape

router = APIRouter()


@router.post("/v1/chat/completions")
async def chat_completions(request: Request) -> Response:
    house = house_of(request)
    house.check_open()
    body = await body_of(request)
    ask = chat_ask(body, house.config, key_of(request))
    return await _answered(request, ask, ChatShape, str(body["model"]))


@router.post("/v1/completions")
async def completions(request: Request) -> Response:
    house = house_of(request)
    house.check_open()
    body = await body_of(request)
    ask = completion_ask(body, house.config, key_of(request))
    return await _answered(request, ask, CompletionShape, str(body["model"]))


async def _answered(request: Request, ask: Ask, shape: type[ChatShape], named: str) -> Response:
    mark = fingerprint(house_of(request).schedulers[ask.target.model.name])
    return await run(request, ask, shape(ask.job.id, named, mark, ask.job.top_logprobs is not None))


async def run(request: Request, ask: Ask, shape: Shape) -> Response:
    """Put a request into its model's queue, and answer it in this shape."""
    house, key = house_of(request), key_of(request)
    scheduler = house.schedulers[ask.target.model.name]
    most = house.config.limits_of(key.name).max_inflight or 1
    found = None
    if ask.context is not None:
        seconds = ask.job.seconds
        found = await house.contexts.asked(key, ask.context, ask.target.model.name, ask.wait, seconds)
    undelivered = house.config.limits.undelivered
    running = Running(scheduler, ask, key.name, most, undelivered, request.state.record, found)
    return await respond(request, house.config, running, shape)
