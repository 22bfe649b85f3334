"""What is asked of a model, and what comes back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from laconic.cache.saved import SavedContext
from laconic.engine.stock import StockSession
from laconic.measure.stats import Stats
from laconic.memory.memory import Memory
from laconic.method import Method, Protect
from laconic.prompts.clip import Clip
from laconic.prompts.text import Prompt
from laconic.session import Session

Mode = Literal["in view", "later"]
"""Whether the question is in view when the context is compressed, or comes later."""


@dataclass(frozen=True)
class Request:
    """One question, and how it is to be answered.

    Attributes:
        context, question: text; one of them may be empty. `images`: upright, RGB, in the order in which the prompt shows
            them. `answer_prefix`: opens the answer, and the model continues from there. `system`: the system message.
        clip: a video, for models with a video input of their own; it comes after the images.
        sounds: mono at the sampling rate of the model's processor, before the text; not with images.
        history: earlier turns, ``{"role": "user" or "assistant", "content": text}``, the oldest first; they belong to the
            context. Not with images.
        prompt: the prompt itself, where the caller has built it; the fields above are then not used.
        saved: a context that was compressed earlier, in place of `context`, `history`, `system` and `images`. The stock
            model reads its text.
        memory: a context as soft tokens, in place of `context`. The stock model reads the tokens that it was made of.
        methods: what compresses; empty: those of `saved`, or none, and the session stores everything; None: the stock model.
        protect: what no method may remove; see `laconic.compress`.
        mode: "in view": context and question are read, and compressed, together. "later": the context alone is compressed
            first, and the question is stored whole.
        max_new_tokens: longest answer.
        sample: draw tokens, at `temperature` (1.0 if None); else decoding is greedy.
        seed: of torch's generator when decoding begins; None leaves it as it is.
        count_flops: count what methods compute themselves; see `laconic.compress`.
        chunk: read the prompt in pieces of this many tokens; not with images.
        original: the request as it was before its context was shortened; None where it was not.
        options: further arguments of `generate()`, such as num_beams, top_p or stopping_criteria; they win over the fields
            above.
    """

    context: str = ""
    question: str = ""
    images: Sequence[Image.Image] = ()
    clip: Clip | None = None
    sounds: Sequence[NDArray[np.float32]] = ()
    answer_prefix: str = ""
    system: str | None = None
    history: Sequence[Mapping[str, str]] = ()
    prompt: Prompt | None = None
    saved: SavedContext | None = None
    memory: Memory | None = None
    methods: Sequence[Method] | None = ()
    protect: Protect = ()
    mode: Mode = "in view"
    max_new_tokens: int = 64
    sample: bool = False
    temperature: float | None = None
    seed: int | None = None
    count_flops: bool = False
    chunk: int | None = None
    original: Request | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def stock(self) -> Request:
        """The same question put to the stock model, the whole context and question together."""
        return replace(self.original or self, methods=None, mode="in view", protect=())


@dataclass
class Answer:
    """What came back for one question, and what it cost.

    Attributes:
        ids: new tokens, the one that ends the turn included; `text`: of them, without special tokens.
        finish: "eos"; "length" if the answer was cut; "stop" if a stopping criterion of the request ended it.
        first_seconds: from the start of the request (in a batch a share of it; for a further question of a conversation: of
            that question) to the first token. `later_seconds`: from the first token to the last.
        compressed: figures once the budget is spent: after the context (mode "later"), or after the prompt.
        prompt: figures at the first token of the conversation: context and first question are in the cache.
        final: figures after the last token. All three are of one sequence; in a batch, means over it.
        peak_memory: bytes at the peak since the session was opened; `memory_kind` says of what, see `Memory`.
        notes: what methods and transformers warned about, complete when the session is closed.
        session: the one that answered; its trace and kept sets can be read after it is closed.
        kept: the memory that stood in the prompt for its context; its cost is part of the figures.
    """

    text: str
    ids: list[int]
    finish: str
    first_seconds: float
    later_seconds: float
    compressed: Stats
    prompt: Stats
    final: Stats
    peak_memory: int
    memory_kind: str
    notes: list[str]
    session: Session | StockSession
    kept: Memory | None = None

    def __str__(self) -> str:
        return self.text

    @property
    def seconds_per_token(self) -> float | None:
        """From one token to the next; None when there was only one."""
        return self.later_seconds / (len(self.ids) - 1) if len(self.ids) > 1 else None
