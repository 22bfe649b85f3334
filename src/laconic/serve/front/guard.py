"""What stands before every route: request ids, keys, limits of size and time, one error object, one line in the log."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import re
import time
import uuid
from collections.abc import Callable, Iterable
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from laconic.serve.config import Config
from laconic.serve.keys import ANYONE, Key, KeyRing
from laconic.serve.refusal import Refusal

PUBLIC = ("/livez", "/readyz", "/health")
"""What can be asked without a key: whether the server is alive and ready, and no more."""
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
MAX_HEADERS = 64
CLIENT_LEFT = 499
"""Status in the log of a request whose client did not wait for the answer."""


class Guard:
    """The outermost layer of the application.

    Args:
        keys: None: there are none, and everybody is `ANYONE`.
        finished: receives what is to be logged and counted of every request: a dictionary without a word of its text.
    """

    def __init__(self, app: ASGIApp, config: Config, keys: KeyRing | None, finished: Callable[[dict[str, Any]], None]):
        self._app, self._config, self._keys, self._finished = app, config, keys, finished

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        headers = _headers(scope["headers"])
        given = headers.get("x-request-id", "")
        name = given if REQUEST_ID.fullmatch(given) else f"req-{uuid.uuid4().hex}"
        record: dict[str, Any] = {"request_id": name, "method": scope["method"], "route": "none", "status": 0}
        scope.setdefault("state", {})["record"] = record
        begun = False

        async def sending(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                record["status"] = message["status"]
                message = {**message, "headers": [*message["headers"], (b"x-request-id", name.encode())]}
            await send(message)

        try:
            self._check(scope, headers)
            scope["state"]["key"] = key = self._who(scope["path"], headers)
            record["key"] = key.name
            await self._app(scope, self._limited(receive, headers), sending)
        except Refusal as refusal:
            record["code"] = refusal.code
            if not begun:
                await send_refusal(sending, refusal)
        except asyncio.CancelledError:
            record["status"] = CLIENT_LEFT
            raise
        except Exception as error:
            record["code"], record["error"] = "internal_error", where(error)
            if begun:
                raise
            await send_refusal(sending, Refusal(500, "internal_error", "the server failed; its log says where."))
        finally:
            if record.pop("left", False):
                record["status"] = CLIENT_LEFT
            record["route"] = getattr(scope.get("route"), "path", "none")
            record["seconds"] = round(time.perf_counter() - began, 4)
            if scope["path"] not in PUBLIC:  # balancers ask every second
                self._finished(record)

    # -- who and what ----------------------------------------------------------------------------------------------
    def _check(self, scope: Scope, headers: dict[str, str]) -> None:
        if len(scope["headers"]) > MAX_HEADERS:
            raise Refusal(431, "headers_too_large", f"a request has at most {MAX_HEADERS} headers.")
        if not host_allowed(headers.get("host", ""), self._config.server.hosts):
            raise Refusal(403, "host_not_allowed", "this server is not called by that name; [server] hosts lists its names.")

    def _who(self, path: str, headers: dict[str, str]) -> Key:
        public = path in PUBLIC or (path == "/metrics" and self._config.server.metrics_public)
        if self._keys is None or public:
            return ANYONE
        kind, _, token = headers.get("authorization", "").partition(" ")
        key = self._keys.find(token.strip())
        if kind.lower() != "bearer" or key is None:
            raise Refusal(
                401,
                "invalid_api_key",
                "give a key of this server: Authorization: Bearer KEY.",
                headers={"WWW-Authenticate": "Bearer"},
            )
        return key

    def _limited(self, receive: Receive, headers: dict[str, str]) -> Receive:
        """`receive` that refuses a body that is too long or takes too long."""
        limits = self._config.limits
        multipart = headers.get("content-type", "").startswith("multipart/form-data")
        most = limits.multipart_bytes if multipart else limits.json_bytes
        too_large = Refusal(413, "request_too_large", f"a body of this kind has at most {most:,} bytes.")
        length = headers.get("content-length", "")
        if length.isascii() and length.isdigit() and (len(length) > 12 or int(length) > most):
            raise too_large
        ends, size, complete = time.monotonic() + limits.body_s, 0, False

        async def limited() -> Message:
            nonlocal size, complete
            if complete:
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), max(0.0, ends - time.monotonic()))
            except TimeoutError:
                raise Refusal(400, "request_timeout", f"the body did not come within {limits.body_s:g} s.") from None
            size += len(message.get("body", b""))
            complete = not message.get("more_body", False)
            if size > most:
                raise too_large
            return message

        return limited


def host_allowed(header: str, names: Iterable[str]) -> bool:
    """Whether a request may call this server so. A web page can reach a server in its visitor's network under a name that
    its owner has made up (DNS rebinding), so names have to be known; addresses cannot be made up."""
    host = header.rsplit(":", 1)[0] if re.search(r":\d*$", header) else header
    host = host.strip("[]").lower()
    if host == "localhost" or host in (name.lower() for name in names):
        return True
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _headers(given: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in given}


async def send_refusal(send: Send, refusal: Refusal) -> None:
    """The error object as a response."""
    body = json.dumps(refusal.body).encode()
    headers = {"content-type": "application/json", "content-length": str(len(body)), **refusal.headers}
    raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": refusal.status, "headers": raw})
    await send({"type": "http.response.body", "body": body})


def where(error: BaseException) -> str:
    """Kind and place of an error; its text may quote a prompt."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = "" if trace is None else f" at {trace.tb_frame.f_code.co_filename.rpartition('/')[2]}:{trace.tb_lineno}"
    return type(error).__name__ + place
