"""What the front asks of a worker for one request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Stored:
    """Where a context lies: the tenant's namespace in the store, the key there, and its form: a "text", "turns" that are
    closed, or "both", turns and a text after them."""

    namespace: str
    key: str
    form: str = "text"


@dataclass(frozen=True)
class Job:
    """One request for answers.

    Attributes:
        id: of the request. `seconds`: until its deadline, when the job is sent.
        messages: of a chat, contents as text or as parts ``{"type": "text", "text"}`` and ``{"type": "image", "data":
            base64}``; else `prompt`, text or token ids.
        context: what it asks. `whole`: the messages begin with what it holds; else they come after that.
        compress: how the prompt is compressed, see `Compression.facts`.
        sampling: see `laconic.serve.worker.sampling.Sampling`. `n`: how many answers, seeds counted on from the first.
        max_tokens: longest answer; None: what the model has room for. `stop`: strings that end it.
        top_logprobs: how many likeliest tokens to tell; None: no log probabilities.
    """

    id: str
    messages: Sequence[Mapping[str, Any]] = ()
    prompt: str | Sequence[int] | None = None
    context: Stored | None = None
    whole: bool = False
    compress: Mapping[str, Any] | None = None
    sampling: Mapping[str, Any] = field(default_factory=dict)
    n: int = 1
    max_tokens: int | None = None
    stop: Sequence[str] = ()
    top_logprobs: int | None = None
    seconds: float = 120.0

    def facts(self) -> dict[str, Any]:
        """For the wire."""
        return asdict(self)

    @classmethod
    def wired(cls, facts: Mapping[str, Any]) -> Job:
        """What `facts` put on the wire."""
        context = facts["context"]
        return cls(**{**facts, "context": None if context is None else Stored(**context)})

    @property
    def shows_images(self) -> bool:
        return any(not isinstance(message["content"], str) for message in self.messages)
