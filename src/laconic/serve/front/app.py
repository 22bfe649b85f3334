"""The application: its routes, and what it is made of."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp

from laconic.serve.config import Config, Model
from laconic.serve.front import answering, context_routes, health, listings, response_routes, tokens
from laconic.serve.front.backend import Launch, spawned
from laconic.serve.front.contexts import Contexts
from laconic.serve.front.guard import Guard
from laconic.serve.front.house import House
from laconic.serve.front.logs import write
from laconic.serve.front.metrics import Metrics
from laconic.serve.front.scheduler import Scheduler
from laconic.serve.keys import KeyRing
from laconic.serve.refusal import Refusal


def settings_of(config: Config, model: Model) -> dict[str, Any]:
    """What a worker has to know."""
    presets = [preset.facts() for preset in config.presets.values()]
    return {
        "path": model.path or model.name,
        "dtype": model.dtype,
        "device": model.device,
        "threads": model.threads,
        "max_context": model.max_context,
        "presets": presets,
        "store": str(config.store.folder),
        "memory_bytes": config.store.memory_bytes,
        "refuse_special": config.server.special_tokens == "refuse",
    }


def build(
    config: Config,
    launch: Launch = spawned,
    log: Callable[[Mapping[str, Any]], None] = write,
) -> tuple[ASGIApp, House]:
    """The application, and what it is made of.

    Args:
        launch: starts a worker. `log`: receives a line's fields.
    """
    keys = None if config.key_file is None else KeyRing(config.key_file)
    schedulers = {model.name: Scheduler(model, config.limits, settings_of(config, model), launch) for model in config.models}
    contexts = Contexts(config, schedulers)
    house = House(config, keys, schedulers, Metrics(schedulers, contexts), contexts)

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        for scheduler in schedulers.values():
            scheduler.backend.start()
        tasks = [asyncio.create_task(contexts.sweeping()), asyncio.create_task(contexts.following())]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            contexts.close()
            for scheduler in schedulers.values():
                scheduler.backend.stop()

    app = FastAPI(lifespan=life, docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    app.state.house = house
    app.add_exception_handler(HTTPException, _not_found)
    app.add_exception_handler(Refusal, _refused)
    for part in (answering, context_routes, response_routes, health, listings, tokens):
        app.include_router(part.router)

    def finished(record: dict[str, Any]) -> None:
        house.metrics.count(record)
        log(record)

    guarded: ASGIApp = Guard(app, config, keys, finished)
    if config.server.origins:
        guarded = CORSMiddleware(guarded, allow_origins=config.server.origins, allow_methods=["*"], allow_headers=["*"])
    return guarded, house


async def _not_found(request: Request, error: Exception) -> Response:
    """No such route, or not with this method."""
    status = getattr(error, "status_code", 404)
    if status == 405:
        allowed = dict(getattr(error, "headers", None) or {})
        refusal = Refusal(405, "method_not_allowed", "this route takes another method.", headers=allowed)
    else:
        refusal = Refusal(404, "not_found", "there is no such route.")
    return await _refused(request, refusal)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    request.state.record["code"] = error.code
    return JSONResponse(error.body, error.status, error.headers)
