"""The playground's side of the server's HTTP, with nothing but the standard library."""

from __future__ import annotations

import base64
import json
import mimetypes
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from laconic.errors import LaconicError
from laconic.playground.choice import NONE, Choice

JOINT = "\n\nQuestion: "
"""Between a document and its question; what the server writes between a stored context and a question, too."""
WAIT_S = 600.0


class PlaygroundError(LaconicError):
    """What the server refused, or that it cannot be reached, in a sentence for the page."""


@dataclass(frozen=True)
class Answer:
    """An answer, as far as it has come.

    Attributes:
        text: so far. `done`: whether it is whole.
        figures: the server's, of `usage.laconic`; empty until it is whole.
        reading: seconds in which the document was read and compressed, 0 where that is part of the answer. `first`, `total`:
            seconds from the question to the first text, and to the last.
        pieces: the document in runs, each with whether one head of one layer kept it; empty where the server does not say.
    """

    text: str = ""
    done: bool = False
    figures: dict[str, Any] = field(default_factory=dict)
    reading: float = 0.0
    first: float = 0.0
    total: float = 0.0
    pieces: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Server:
    """A server of laconic.

    Args:
        url: with ``/v1``. `key`: of a user; None where the server has none.
    """

    url: str
    key: str | None = None

    def models(self) -> list[str]:
        """Names of the models, presets aside."""
        return [one["id"] for one in self._json("GET", "/models")["data"] if ":" not in one["id"]]

    def methods(self) -> list[str]:
        """Names of the methods that shorten what is stored and that this server allows."""
        return [one["name"] for one in self._json("GET", "/methods")["data"] if one["site"] == "cache" and one["allowed"]]

    def ask(
        self, model: str, document: str, question: str, choice: Choice, image: Path | None = None, most: int = 64
    ) -> Iterator[Answer]:
        """The answer as it grows, the last one whole.

        A document is read and compressed before the question is known, and stored; beside an image, or uncompressed, all
        is one prompt.

        Raises:
            PlaygroundError: the server refuses, or cannot be reached.
        """
        body: dict[str, Any] = {"model": model, "max_completion_tokens": most, "temperature": 0}
        context, reading = None, 0.0
        if choice.method == NONE or image is not None:
            body["messages"] = [{"role": "user", "content": _content(document, question, image)}]
            if choice.method != NONE:
                body["laconic"] = {"compress": choice.compress()}
        else:
            began = time.monotonic()
            context = self._context(model, document, choice)
            reading = time.monotonic() - began
            body |= {"model": f"{model}@{context}", "messages": [{"role": "user", "content": question}]}
        for answer in self._streamed(body):
            whole = replace(answer, reading=reading)
            yield replace(whole, pieces=self.kept(context)) if whole.done and context else whole

    def kept(self, context: str, layer: int = 0, head: int = 0) -> list[dict[str, Any]]:
        """The document of a context in runs ``{"text", "kept"}``, as one head stores it."""
        found = self._json("GET", f"/contexts/{context}/kept?layer={layer}&head={head}&text=true")
        return list(found.get("pieces", ()))

    def _context(self, model: str, document: str, choice: Choice) -> str:
        """The id of the compressed document, once it is ready."""
        body = {"model": model, "text": document, "compress": choice.compress(), "wait": 30}
        made, until = self._json("POST", "/contexts", body), time.monotonic() + WAIT_S
        while made["status"] not in ("ready", "failed"):
            if time.monotonic() > until:
                raise PlaygroundError(f"the document is still being read after {WAIT_S:.0f} seconds; ask again later.")
            time.sleep(0.3)
            made = self._json("GET", f"/contexts/{made['id']}")
        if made["status"] == "failed":
            raise PlaygroundError(f"the document could not be compressed: {(made.get('error') or {}).get('message', made)}")
        return str(made["id"])

    def _streamed(self, body: dict[str, Any]) -> Iterator[Answer]:
        began, answer = time.monotonic(), Answer()
        body = body | {"stream": True, "stream_options": {"include_usage": True}}
        with self._open("POST", "/chat/completions", body) as response:
            for line in response:
                if not line.startswith(b"data: ") or line.startswith(b"data: [DONE]"):
                    continue
                part = json.loads(line[len(b"data: ") :])
                if "error" in part:
                    raise PlaygroundError(str(part["error"]["message"]))
                now = time.monotonic() - began
                for choice in part["choices"]:
                    text = choice["delta"].get("content") or ""
                    if text:
                        answer = replace(answer, text=answer.text + text, first=answer.first or now, total=now)
                        yield answer
                if part.get("usage"):
                    answer = replace(answer, figures=part["usage"].get("laconic", {}))
        yield replace(answer, done=True, total=time.monotonic() - began)

    def _json(self, verb: str, path: str, body: dict[str, Any] | None = None) -> Any:
        with self._open(verb, path, body) as response:
            return json.loads(response.read())

    def _open(self, verb: str, path: str, body: dict[str, Any] | None) -> Any:
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self.key}"} if self.key else {})
        data = None if body is None else json.dumps(body).encode()
        try:
            return urlopen(Request(self.url.rstrip("/") + path, data, headers, method=verb), timeout=WAIT_S)
        except HTTPError as error:
            try:
                message = json.loads(error.read())["error"]["message"]
            except (ValueError, KeyError, TypeError):
                message = error.reason
            raise PlaygroundError(f"{message} ({error.code})") from None
        except (URLError, HTTPException, OSError, ValueError) as error:
            reason = getattr(error, "reason", error)
            raise PlaygroundError(f"no server answers at {self.url}: {reason}; start one with `laconic serve`.") from None


def _content(document: str, question: str, image: Path | None) -> str | list[dict[str, Any]]:
    text = document + JOINT + question if document else question
    if image is None:
        return text
    kind = mimetypes.guess_type(image.name)[0] or "image/png"
    data = base64.b64encode(image.read_bytes()).decode()
    return [{"type": "image_url", "image_url": {"url": f"data:{kind};base64,{data}"}}, {"type": "text", "text": text}]
