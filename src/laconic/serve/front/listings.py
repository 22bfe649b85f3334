"""`/v1/models`, `/v1/methods` and `/version`: what there is."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from laconic.serve.config import Model
from laconic.serve.front.asking import target_of
from laconic.serve.front.house import House, house_of, key_of
from laconic.serve.refusal import Refusal
from laconic.shelf import lines, sheet
from laconic.version import __version__

router = APIRouter()
SHOWN = ("name", "site", "modality", "mechanism", "training", "source", "query_aware", "inferred", "summary")


@router.get("/v1/models")
async def models(request: Request) -> Response:
    """Models that this key may use, and each with every preset."""
    house = house_of(request)
    found = [_entry(house, m, name) for m in house.models_of(key_of(request)) for name in _names(house, m)]
    return JSONResponse({"object": "list", "data": found})


@router.get("/v1/models/{name:path}")
async def model(request: Request, name: str) -> Response:
    """One model."""
    house = house_of(request)
    target = target_of(house.config, key_of(request), name)
    if target.context is not None:
        raise Refusal(404, "model_not_found", "a context is no model; GET /v1/contexts lists contexts.", "model")
    return JSONResponse(_entry(house, target.model, name))


@router.get("/v1/methods")
async def methods(request: Request) -> Response:
    """The catalogue: what is allowed here, what becomes of contexts that go on, and whether requests share a batch."""
    limited = [set(m.allowed_methods) for m in house_of(request).models_of(key_of(request)) if m.allowed_methods]
    found = []
    for line in lines().values():
        allowed = not limited or any(line.name in names for names in limited)
        about = sheet(line.name)
        more = {"allowed": allowed, "reuse": about.reuse, "batch": not (about.uneven or about.packs)}
        found.append({name: getattr(line, name) for name in SHOWN} | more)
    return JSONResponse({"object": "list", "data": sorted(found, key=lambda one: (one["site"], one["name"]))})


@router.get("/version")
async def version() -> Response:
    return JSONResponse({"version": __version__})


def _names(house: House, model: Model) -> list[str]:
    return [model.name, *(f"{model.name}:{preset}" for preset in house.config.presets)]


def _entry(house: House, model: Model, name: str) -> dict[str, Any]:
    facts = house.schedulers[model.name].backend.facts
    presets = {
        preset: {"method": "+".join(found.methods), "budget": dict(found.budget)}
        for preset, found in house.config.presets.items()
    }
    shown = ("family", "modalities", "max_context", "dtype", "device", "fingerprint")
    about = {one: facts.get(one) for one in shown} | {"presets": presets, "default_preset": model.default_preset}
    return {"id": name, "object": "model", "created": house.started, "owned_by": "laconic", "laconic": about}
