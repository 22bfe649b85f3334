"""How the Responses API looks on the wire: the object with all its keys, and the events of a stream."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

from laconic.serve.front import sse
from laconic.serve.front.answers import Running
from laconic.serve.refusal import Refusal


class ResponseShape:
    """``response``.

    Args:
        name: id of the response. `model`: as the request called it. `body`: of the request; what it says is echoed.
    """

    def __init__(self, name: str, model: str, body: Mapping[str, Any]):
        self._name, self._model, self._body = name, model, body
        self._created = int(time.time())
        self._item = f"msg_{name.removeprefix('resp_')}"
        self._events = 0

    def object(self, status: str, running: Running | None = None, error: dict[str, Any] | None = None) -> dict[str, Any]:
        """The response as it is now; `running`: once it has an answer."""
        body, output, more = self._body, [], {}
        incomplete = None
        if running is not None:
            choice = running.inbox.choices[0]
            if choice.finish == "length":
                status, incomplete = "incomplete", {"reason": "max_output_tokens"}
            output = [self._message(choice.text, "completed" if status == "completed" else "incomplete")]
            more = {**running.extra()}
            more["usage"] = response_usage(more["usage"])
        return {
            "id": self._name,
            "object": "response",
            "created_at": self._created,
            "completed_at": int(time.time()) if status == "completed" else None,
            "status": status,
            "incomplete_details": incomplete,
            "model": self._model,
            "previous_response_id": None,
            "instructions": body.get("instructions"),
            "output": output,
            "error": error,
            "tools": [],
            "tool_choice": "none",
            "truncation": "disabled",
            "parallel_tool_calls": False,
            "text": {"format": {"type": "text"}},
            "top_p": body.get("top_p", 1.0),
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            "top_logprobs": 0,
            "temperature": body.get("temperature", 1.0),
            "reasoning": None,
            "user": None,
            "usage": None,
            "max_output_tokens": body.get("max_output_tokens"),
            "max_tool_calls": None,
            "store": False,
            "background": False,
            "service_tier": "default",
            "metadata": body.get("metadata") or {},
            "safety_identifier": None,
            "prompt_cache_key": body.get("prompt_cache_key"),
            **more,
        }

    def whole(self, running: Running) -> dict[str, Any]:
        return self.object("completed", running)

    async def pieces(self, running: Running) -> AsyncIterator[bytes]:
        """The events of a stream."""
        event, begun = self._event, False
        at = {"item_id": self._item, "output_index": 0, "content_index": 0}
        async for _, piece in running.inbox.pieces():
            if not begun:
                begun = True
                for created in self._created_events():
                    yield created
                opened = {**self._message("", "in_progress"), "content": []}
                yield event("response.output_item.added", output_index=0, item=opened)
                yield event("response.content_part.added", **at, part=_part(""))
            if piece["text"]:
                yield event("response.output_text.delta", **at, delta=piece["text"], logprobs=[])
        final = self.object("completed", running)
        text = running.inbox.choices[0].text
        yield event("response.output_text.done", **at, text=text, logprobs=[])
        yield event("response.content_part.done", **at, part=_part(text))
        yield event("response.output_item.done", output_index=0, item=final["output"][0])
        yield event(f"response.{final['status']}", response=final)
        yield sse.DONE

    def failed(self, refusal: Refusal) -> list[bytes]:
        """The events that end a stream after an error."""
        error = refusal.body["error"]
        failed = self.object("failed", error={"code": "server_error", "message": error["message"]})
        return [
            *(() if self._events else self._created_events()),
            self._event("error", code=error["code"], message=error["message"], param=error["param"]),
            self._event("response.failed", response=failed),
        ]

    def _created_events(self) -> list[bytes]:
        empty = self.object("in_progress")
        return [self._event(kind, response=empty) for kind in ("response.created", "response.in_progress")]

    def _event(self, kind: str, **fields: Any) -> bytes:
        number, self._events = self._events, self._events + 1
        return sse.data({"type": kind, "sequence_number": number, **fields}, kind)

    def _message(self, text: str, status: str) -> dict[str, Any]:
        return {"id": self._item, "type": "message", "role": "assistant", "status": status, "content": [_part(text)]}


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def response_usage(found: Mapping[str, Any]) -> dict[str, Any]:
    """The `usage` of a chat under the names of the Responses API."""
    return {
        "input_tokens": found["prompt_tokens"],
        "input_tokens_details": found["prompt_tokens_details"],
        "output_tokens": found["completion_tokens"],
        "output_tokens_details": found["completion_tokens_details"],
        "total_tokens": found["total_tokens"],
        "laconic": found["laconic"],
    }
