"""`/v1/contexts`."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from dataclasses import replace
from typing import Any

from fastapi import APIRouter, Request
from starlette.datastructures import UploadFile
from starlette.responses import JSONResponse, Response

from laconic.serve.compression import Compression, protected
from laconic.serve.front.asking import Target, compression_of, target_of
from laconic.serve.front.bodies import parsed
from laconic.serve.front.chat import messages_of
from laconic.serve.front.fields import Fields
from laconic.serve.front.house import House, body_of, house_of, key_of
from laconic.serve.front.records import Record
from laconic.serve.refusal import Refusal, invalid

router = APIRouter()
MAX_WAIT = 30
MAX_FILES = 64
OF_TEXT = ("text", "messages", "system", "protect")
STATUSES = ("queued", "running", "ready", "failed")


@router.post("/v1/contexts")
async def create(request: Request) -> Response:
    """Make a context: 201 if it is ready within `wait`, 202 while it is being made, 200 if it was there."""
    house, key = house_of(request), key_of(request)
    house.check_open()
    body = await _body(request)
    fields = Fields(body)
    target = target_of(house.config, key, fields.required("model"))
    if target.context is not None:
        raise Refusal(404, "model_not_found", "a context is no model.", "model")
    wait, began = fields.number("wait", 0, MAX_WAIT, 0), time.monotonic()
    named = fields.text("parent", 64)
    parent = None if named is None else await house.contexts.parent(key, named, target.model.name, wait)
    compression, preset = _compression(house, fields, target, parent)
    about = _about(
        house, fields, {"ttl": float(house.config.store.default_ttl), "pinned": False, "metadata": {}, "name": None}
    )
    for field in OF_TEXT:
        fields.raw(field)
    fields.rest(house.config.server.lenient)  # before anything is missed: its name may be misspelled
    wanted = _wanted(fields, compression)
    record, new = await house.contexts.create(key, target.model.name, wanted, about, parent)
    request.state.record |= {"model": record.model, "context": record.id, "preset": preset}
    if wait and not record.done.is_set():
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(record.done.wait(), wait - (time.monotonic() - began))
    if new and record.status == "ready":
        read_before = 0 if parent is None else parent.tokens["original"]
        request.state.record["cache_write_tokens"] = record.tokens["original"] - read_before
    status = 202 if not record.done.is_set() else 201 if new else 200
    return _shown(record, status)


@router.get("/v1/contexts")
async def listing(
    request: Request,
    limit: str = "20",
    after: str = "",
    order: str = "desc",
    status: str = "",
    model: str = "",
    all: str = "",
) -> Response:
    """A key's contexts, in pages."""
    house, key = house_of(request), key_of(request)
    if not re.fullmatch(r"[0-9]{1,3}", limit) or not 1 <= int(limit) <= 100:
        raise invalid("limit", "limit must be between 1 and 100.")
    if order not in ("asc", "desc"):
        raise invalid("order", "order must be asc or desc.")
    if status and status not in STATUSES:
        raise invalid("status", f"status must be one of {', '.join(STATUSES)}.")
    if all and not key.admin:
        raise Refusal(403, "admin_only", "only an administrator's key lists the contexts of all.")
    found = [r for r in house.contexts.of(key, bool(all)) if status in ("", r.status) and model in ("", r.model)]
    if order == "desc":
        found.reverse()
    names = [record.id for record in found]
    if after:
        if after not in names:
            raise invalid("after", "after must be the id of a context in this list.")
        found = found[names.index(after) + 1 :]
    page = found[: int(limit)]
    data = [_for_admin(record) if all else record.shown() for record in page]
    first, last = (page[0].id, page[-1].id) if page else (None, None)
    more = len(found) > len(page)
    return JSONResponse({"object": "list", "data": data, "first_id": first, "last_id": last, "has_more": more})


@router.get("/v1/contexts/{name}")
async def one(request: Request, name: str) -> Response:
    return _shown(house_of(request).contexts.find(key_of(request), name), 200)


@router.patch("/v1/contexts/{name}")
async def change(request: Request, name: str) -> Response:
    """Another name, metadata or time to live; pinned or not."""
    house = house_of(request)
    fields = Fields(await body_of(request))
    about = _about(house, fields, {"ttl": None, "pinned": None, "metadata": None, "name": None})
    fields.rest(house.config.server.lenient)
    record = house.contexts.find(key_of(request), name)
    house.contexts.change(record, about)
    return _shown(record, 200)


@router.delete("/v1/contexts/{name}")
async def delete(request: Request, name: str) -> Response:
    house = house_of(request)
    record = house.contexts.find(key_of(request), name)
    house.contexts.remove(record)
    return JSONResponse({"id": record.id, "object": "context.deleted", "deleted": True})


@router.get("/v1/contexts/{name}/kept")
async def kept(request: Request, name: str, layer: str = "0", head: str = "0", text: str = "false") -> Response:
    """Which tokens a head of a layer stores; with text=true, the text in pieces that stay and pieces that do not."""
    house, key = house_of(request), key_of(request)
    for field, value in (("layer", layer), ("head", head)):
        if not re.fullmatch(r"[0-9]{1,4}", value):
            raise invalid(field, f"{field} must be a whole number.")
    if text not in ("true", "false"):
        raise invalid("text", "text must be true or false.")
    record = house.contexts.find(key, name)
    if record.status != "ready":
        raise Refusal(409, "context_not_ready", "this context is not ready.", headers={"Retry-After": "1"})
    backend = house.schedulers[record.model].backend
    said = await backend.call("kept", context=vars(record.stored), layer=int(layer), head=int(head), text=text == "true")
    found = {field: said[field] for field in ("tokens", "kept", "runs", "pieces") if field in said}
    return JSONResponse({"object": "context.kept", "layer": int(layer), "head": int(head), **found})


def _shown(record: Record, status: int) -> Response:
    headers = {} if record.done.is_set() else {"Retry-After": "1", "Location": f"/v1/contexts/{record.id}"}
    return JSONResponse(record.shown(), status, headers)


def _for_admin(record: Record) -> dict[str, Any]:
    """Sizes and owner; no name, no metadata, no contents."""
    shown = record.shown()
    fields = (
        "id",
        "object",
        "created_at",
        "last_used_at",
        "expires_at",
        "status",
        "model",
        "pinned",
        "tokens",
        "bytes",
        "uses",
    )
    return {field: shown[field] for field in fields} | {"owner": record.owner}


def _compression(
    house: House, fields: Fields, target: Target, parent: Record | None
) -> tuple[Compression | None, str | None]:
    """How the context is compressed, and the preset that says so. One that goes on is compressed as its parent was: entries
    that one method has kept are no start for another, nor for a smaller budget.

    Raises:
        Refusal: another compression than the parent's.
    """
    given, preset = fields.raw("compress"), fields.text("preset", 128) or target.preset
    if parent is None and given is None and preset is None:
        preset = target.model.default_preset
    found = compression_of(house.config, target.model, given, preset, "compress")
    if parent is None:
        return found, preset
    own = Compression.wired(parent.compress)
    if found is not None and (own is None or found.how != own.how):
        message = "a context that goes on is compressed as its parent was; leave compress and preset out."
        raise Refusal(400, "method_conflict", message, "compress")
    if own is None:
        return None, preset
    spans = [[start, start + length] for start, length in parent.protected]
    return replace(own, protect=[*spans, *(found.protect if found else ())]), preset


def _wanted(fields: Fields, compression: Compression | None) -> dict[str, Any]:
    """What the context is of, with what is protected."""
    text, messages, system = fields.text("text"), fields.raw("messages"), fields.text("system")
    if system is not None and fields.raw("parent") is not None:
        raise invalid("system", "a context that goes on has its parent's system message.")
    if (text is None) == (messages is None):
        raise Refusal(400, "missing_required_parameter", "give text or messages, one of them.", "text")
    if text is not None and not text.strip():
        raise invalid("text", "text is empty.")
    if system is not None and text is None:
        raise invalid("system", "system goes with text; put it into messages as their first one.")
    turns = [] if messages is None else messages_of(messages, "messages")
    if any(not isinstance(message["content"], str) for message in turns):
        raise Refusal(400, "unsupported_parameter", "contexts hold text, not images, for now.", "messages")
    protect = fields.raw("protect")
    if protect is not None:
        if compression is None:
            raise invalid("protect", "protect goes with compress or a preset.")
        more = protected(protect, "protect")
        compression = Compression(**{**vars(compression), "protect": [*compression.protect, *more]})
    facts = None if compression is None else compression.facts()
    return {"compress": facts, "text": text, "system": system, "messages": turns}


def _about(house: House, fields: Fields, default: dict[str, Any]) -> dict[str, Any]:
    """Name, metadata, time to live, and whether it is pinned."""
    store = house.config.store
    found = dict(default)
    ttl = fields.raw("ttl")
    if ttl is not None:
        if isinstance(ttl, str) and re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?s", ttl):
            ttl = float(ttl[:-1])
        if isinstance(ttl, bool) or not isinstance(ttl, (int, float)) or not 0 < ttl <= store.max_ttl:
            raise invalid("ttl", f'ttl is up to {store.max_ttl} seconds, as a number or as "300s".')
        found["ttl"] = float(ttl)
    if fields.raw("pinned") is not None:
        found["pinned"] = fields.flag("pinned")
    if fields.raw("metadata") is not None:
        found["metadata"] = fields.labels("metadata")
    name = fields.text("name", 128)
    return found if name is None else {**found, "name": name}


async def _body(request: Request) -> dict[str, Any]:
    """A JSON body, or a form with a part `request` and text files, which make up its text."""
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        return await body_of(request)
    try:
        form = await request.form(max_files=MAX_FILES, max_fields=8)
        head = form.get("request")
        raw = await head.read() if isinstance(head, UploadFile) else str(head or "").encode()
        files = [part for part in form.getlist("file") if isinstance(part, UploadFile)]
        texts = [(await part.read()).decode("utf-8").removeprefix("\ufeff") for part in files]
    except UnicodeDecodeError:
        raise invalid("file", "a file is not UTF-8.") from None
    except Refusal:
        raise
    except Exception:  # the parser's errors for broken forms are of several kinds
        raise Refusal(400, "invalid_value", "the form is broken.") from None
    body = parsed(raw)
    if not texts or "text" in body or "messages" in body:
        raise Refusal(
            400, "missing_required_parameter", "a form has file parts, and no text or messages beside them.", "file"
        )
    return {**body, "text": "\n\n".join(texts)}
