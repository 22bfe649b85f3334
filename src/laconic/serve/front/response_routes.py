"""`/v1/responses` and `/v1/responses/compact`."""

from __future__ import annotations

import asyncio
import time
import uuid
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from laconic.serve.front.answering import run
from laconic.serve.front.asking import compression_of, target_of
from laconic.serve.front.breakpoints import CacheOptions
from laconic.serve.front.fields import Fields
from laconic.serve.front.house import body_of, house_of, key_of
from laconic.serve.front.records import tenant_of
from laconic.serve.front.response_shapes import ResponseShape
from laconic.serve.front.responses import IGNORED, LIVES, items_of, response_ask
from laconic.serve.front.scheduler import overdue
from laconic.serve.front.sealed import opened, sealed
from laconic.serve.refusal import NO_RETRY, Refusal

router = APIRouter()


@router.post("/v1/responses")
async def responses(request: Request) -> Response:
    house, key = house_of(request), key_of(request)
    house.check_open()
    body = await body_of(request)
    ask, items = response_ask(body, house.config, key)
    if items.compaction is not None:
        ask.context = opened(house.contexts.records.secret(tenant_of(key.name)), items.compaction)
    return await run(request, ask, ResponseShape(ask.job.id, str(body["model"]), body))


@router.post("/v1/responses/compact")
async def compact(request: Request) -> Response:
    """Compress all items into a context, and answer a sealed reference to it, to stand first in the next input."""
    house, key = house_of(request), key_of(request)
    house.check_open()
    fields = Fields(await body_of(request))
    target = target_of(house.config, key, fields.required("model"))
    items = items_of(fields, asks=False)
    if items.compaction is not None or target.context is not None:
        raise Refusal(400, "unsupported_parameter", "a compaction cannot be compacted again yet.", "input")
    inner = fields.inner("laconic") or Fields({}, "laconic")
    given, preset = inner.raw("compress"), inner.text("preset", 128) or target.preset
    inner.rest(house.config.server.lenient)
    fields.refuse({"previous_response_id": None})
    options = CacheOptions.of(fields, LIVES)
    fields.ignore(IGNORED)
    fields.rest(house.config.server.lenient)
    if any(not isinstance(message["content"], str) for message in items.messages):
        raise Refusal(400, "unsupported_parameter", "contexts hold text, not images, for now.", "input")
    if given is None and preset is None:
        preset = target.model.default_preset
    compression = compression_of(house.config, target.model, given, preset, "laconic.compress")
    facts = None if compression is None else compression.facts()
    wanted = {"compress": facts, "text": None, "system": None, "messages": items.messages, "salt": options.salt}
    about: dict[str, Any] = {"name": None, "metadata": {}, "ttl": options.life(house.config), "pinned": False}
    record, new = await house.contexts.create(key, target.model.name, wanted, about)
    house.contexts.lift(record)
    try:
        await asyncio.wait_for(record.done.wait(), house.config.limits.deadline_s)
    except TimeoutError:
        raise overdue() from None
    if record.status != "ready":
        error = record.error or {"code": "context_failed", "message": "it was deleted."}
        raise Refusal(409, "context_failed", error["message"], headers=NO_RETRY)
    tokens = record.tokens["original"]
    request.state.record |= {"model": record.model, "context": record.id, "preset": preset}
    request.state.record["cache_write_tokens"] = tokens if new else 0
    secret = house.contexts.records.secret(record.tenant)
    item = {
        "type": "compaction",
        "id": f"cmp_{uuid.uuid4().hex}",
        "encrypted_content": sealed(secret, record.id, record.expires_at),
    }
    usage = {
        "input_tokens": tokens,
        "input_tokens_details": {"cached_tokens": 0 if new else tokens, "cache_write_tokens": tokens if new else 0},
        "output_tokens": 0,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": tokens,
        "laconic": {
            "original_tokens": tokens,
            "kept_tokens": round(record.tokens["kept"], 2),
            "kv_bytes": record.bytes["kv"],
            "kv_bytes_full": record.bytes["kv_full"],
        },
    }
    answer = {
        "id": f"cmpr_{uuid.uuid4().hex}",
        "object": "response.compaction",
        "created_at": int(time.time()),
        "output": [item],
        "usage": usage,
    }
    return JSONResponse(answer)
