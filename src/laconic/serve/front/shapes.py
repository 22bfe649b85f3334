"""How answers look on the wire, for chats and for plain completions, whole and in chunks."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

from laconic.serve.front import sse
from laconic.serve.front.answers import Running
from laconic.serve.front.inbox import Choice
from laconic.serve.refusal import Refusal

FINISH = {"stop": "stop", "length": "length", "cancelled": "stop", "deadline": "length"}


class ChatShape:
    """``chat.completion`` and its chunks.

    Args:
        name: id of the answer. `model`: as the request called it. `fingerprint`: of model and server.
    """

    kind, chunk = "chat.completion", "chat.completion.chunk"

    def __init__(self, name: str, model: str, fingerprint: str, logprobs: bool):
        self._head = {"id": name, "created": int(time.time()), "model": model, "system_fingerprint": fingerprint}
        self._logprobs = logprobs

    def whole(self, running: Running) -> dict[str, Any]:
        """A whole answer."""
        choices = [self._choice(i, choice) for i, choice in enumerate(running.inbox.choices)]
        more = running.extra()
        if running.ask.metadata is not None:
            more["metadata"] = running.ask.metadata
        return {**self._head, "object": self.kind, "choices": choices, **more}

    async def pieces(self, running: Running) -> AsyncIterator[bytes]:
        """The chunks of a stream."""
        begun = False
        async for index, piece in running.inbox.pieces():
            if not begun:
                begun = True
                for chunk in self.opening(running.job.n):
                    yield sse.data(chunk)
            if piece["text"] or piece.get("tokens"):
                yield sse.data(self.piece(index, piece["text"], piece.get("tokens", [])))
            if "finish" in piece and piece["finish"] != "deadline":
                yield sse.data(self.end(index, piece["finish"]))
        more = running.extra()
        if running.ask.include_usage:
            yield sse.data(self.part([], more))
        yield sse.DONE

    def failed(self, refusal: Refusal) -> list[bytes]:
        """What ends a stream after an error."""
        return [sse.data(refusal.body)]

    def part(self, choices: list[dict[str, Any]], more: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """A chunk."""
        return {**self._head, "object": self.chunk, "choices": choices, **(more or {})}

    def opening(self, n: int) -> list[dict[str, Any]]:
        """The chunks before any text."""
        empty = {"role": "assistant", "content": ""}
        return [self.part([{"index": i, "delta": empty, "logprobs": None, "finish_reason": None}]) for i in range(n)]

    def piece(self, index: int, text: str, tokens: list[dict[str, Any]]) -> dict[str, Any]:
        """A chunk of text."""
        told = {"content": tokens, "refusal": None} if self._logprobs else None
        return self.part([{"index": index, "delta": {"content": text}, "logprobs": told, "finish_reason": None}])

    def end(self, index: int, finish: str) -> dict[str, Any]:
        """The last chunk of an answer."""
        return self.part([{"index": index, "delta": {}, "logprobs": None, "finish_reason": FINISH[finish]}])

    def _choice(self, index: int, choice: Choice) -> dict[str, Any]:
        return {
            "index": index,
            "message": {"role": "assistant", "content": choice.text, "refusal": None},
            "logprobs": {"content": choice.tokens, "refusal": None} if self._logprobs else None,
            "finish_reason": FINISH[choice.finish or "stop"],
        }


class CompletionShape(ChatShape):
    """``text_completion``, whole and in chunks, which look the same."""

    kind = chunk = "text_completion"

    def opening(self, n: int) -> list[dict[str, Any]]:
        return []

    def piece(self, index: int, text: str, tokens: list[dict[str, Any]]) -> dict[str, Any]:
        return self.part([self._text(index, text, tokens, None)])

    def end(self, index: int, finish: str) -> dict[str, Any]:
        return self.part([self._text(index, "", [], FINISH[finish])])

    def _choice(self, index: int, choice: Choice) -> dict[str, Any]:
        return self._text(index, choice.text, choice.tokens, FINISH[choice.finish or "stop"])

    def _text(self, index: int, text: str, tokens: list[dict[str, Any]], finish: str | None) -> dict[str, Any]:
        told = None
        if self._logprobs:
            told = {
                "tokens": [x["token"] for x in tokens],
                "token_logprobs": [x["logprob"] for x in tokens],
                "top_logprobs": [{y["token"]: y["logprob"] for y in x["top_logprobs"]} for x in tokens],
                "text_offset": _offsets([x["token"] for x in tokens]),
            }
        return {"index": index, "text": text, "logprobs": told, "finish_reason": finish}


def _offsets(tokens: list[str]) -> list[int]:
    """Where each token begins in the text of all."""
    found, at = [], 0
    for token in tokens:
        found.append(at)
        at += len(token)
    return found
