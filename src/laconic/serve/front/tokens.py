"""`/tokenize` and `/detokenize`."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from laconic.serve.front.asking import target_of
from laconic.serve.front.chat import messages_of
from laconic.serve.front.fields import Fields
from laconic.serve.front.house import body_of, house_of, key_of
from laconic.serve.refusal import Refusal, invalid

router = APIRouter()


@router.post("/tokenize")
async def tokenize(request: Request) -> Response:
    """Token ids of a text (`prompt`), or of messages through the chat template."""
    house, fields = house_of(request), Fields(await body_of(request))
    target = target_of(house.config, key_of(request), fields.required("model"))
    text, messages = fields.text("prompt"), fields.raw("messages")
    specials = fields.flag("add_special_tokens", True)
    fields.rest(house.config.server.lenient)
    if (text is None) == (messages is None):
        raise Refusal(400, "missing_required_parameter", "give prompt or messages, one of them.", "prompt")
    asked = {"text": text, "specials": specials} if messages is None else {"messages": messages_of(messages, "messages")}
    said = await house.schedulers[target.model.name].backend.call("tokenize", **asked)
    return JSONResponse({"tokens": said["tokens"], "count": len(said["tokens"])})


@router.post("/detokenize")
async def detokenize(request: Request) -> Response:
    """The text of token ids."""
    house, fields = house_of(request), Fields(await body_of(request))
    target = target_of(house.config, key_of(request), fields.required("model"))
    tokens = fields.raw("tokens")
    fields.rest(house.config.server.lenient)
    whole = isinstance(tokens, list) and len(tokens) <= 1_000_000
    if not whole or not all(isinstance(x, int) and not isinstance(x, bool) and 0 <= x < 2**31 for x in tokens):
        raise invalid("tokens", "tokens must be a list of token ids.")
    said = await house.schedulers[target.model.name].backend.call("detokenize", tokens=tokens)
    return JSONResponse({"prompt": said["text"]})
