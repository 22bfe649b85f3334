"""`/livez`, `/readyz`, `/health` and `/metrics`: for those who run the server."""

from __future__ import annotations

from fastapi import APIRouter, Request
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import JSONResponse, Response

from laconic.serve.front.house import house_of

router = APIRouter()


@router.get("/livez")
async def livez() -> Response:
    """The process answers."""
    return JSONResponse({"status": "ok"})


@router.get("/readyz")
@router.get("/health")
async def readyz(request: Request) -> Response:
    """Requests are taken: all models are loaded and warm."""
    status = house_of(request).status
    return JSONResponse({"status": status}, 200 if status == "ok" else 503)


@router.get("/metrics")
async def metrics(request: Request) -> Response:
    """Counters and clocks in the text format of Prometheus."""
    return Response(house_of(request).metrics.text(), media_type=CONTENT_TYPE_LATEST)
