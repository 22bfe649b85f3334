"""One path from a prompt to an answer and what it cost, on a compressed model or on the stock one.

Example:
    >>> engine = Engine(*laconic.load("testbed/lm"))
    >>> answer = engine.answer(Request(context=notes, question="What is the code?", methods=[method]))
    >>> answer.text, answer.final.kv_bytes
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from transformers import PreTrainedModel

from laconic.cache.saved import SavedContext
from laconic.engine.context import Context, check_askable
from laconic.engine.conversation import AtPrompt, Conversation, OnText
from laconic.engine.generation import generate, opened, read_context
from laconic.engine.remembering import charged, remembered
from laconic.engine.request import Answer as Answer
from laconic.engine.request import Request as Request
from laconic.engine.scoring import Scores, score
from laconic.engine.shortened import shortened
from laconic.engine.stock import StockSession
from laconic.loading import tokenizer_of
from laconic.measure.stats import Stats
from laconic.prompts import media, sound, text
from laconic.prompts.inputs import on_device
from laconic.prompts.text import Prompt, PromptError
from laconic.session import Session

SHARED = (
    "kv_bytes",
    "kv_bytes_full",
    "kv_bytes_allocated",
    "kv_bytes_waiting",
    "prefill_flops",
    "prefill_flops_full",
    "decode_flops",
)
OF_METHODS = ("method_flops", "method_decode_flops")
CLOCKS = ("encoder_seconds", "prefill_seconds", "decode_seconds", "compress_seconds")


class Engine:
    """Answers requests on one model, one at a time: a request opens a session, and a model is in one session at most, so a
    request that comes from another thread meanwhile is a `SessionError`. Threads that are to answer at once share an open
    session (`laconic.compress`), each on a cache of its own.

    Args:
        model: of a supported family.
        reader: its tokenizer, or the processor of a vision language model, as `laconic.load` gives it.
    """

    def __init__(self, model: PreTrainedModel, reader: Any):
        self.model, self.reader, self.tokenizer = model, reader, tokenizer_of(reader)

    def prompt(self, request: Request) -> Prompt:
        """The request's prompt, through the chat template.

        Raises:
            PromptError: nothing to ask, a template that refuses the turns, or one that no longer fits a saved context.
            MediaError: images that cannot be shown, or sounds that the model cannot hear.
        """
        if request.prompt is not None:
            return request.prompt
        saved, memory = request.saved, request.memory
        parts: dict[str, Any]
        if memory is not None:
            parts = {"answer_prefix": request.answer_prefix, "system": request.system, "history": request.history}
            return memory.prompt(self.reader, request.question, **parts)
        if saved is not None:
            request = replace(request, context=saved.text, system=saved.system, history=(), images=())
        parts = {"answer_prefix": request.answer_prefix, "system": request.system}
        reads_images = self.reader is not self.tokenizer
        if saved is not None and saved.images:
            ids = _ids_of(saved)
            return media.continued(self.reader, ids, saved.images, saved.text, request.question, **parts)
        seen = bool(request.images) or request.clip is not None
        if request.sounds and (seen or request.history):
            raise PromptError("sound goes neither with images nor with history yet; leave one of them out.")
        if request.sounds or (sound.hears(self.reader) and not request.history):
            prompt = sound.build(self.reader, request.sounds, request.context, request.question, **parts)
        elif reads_images and not request.history and (seen or getattr(self.reader, "chat_template", None)):
            prompt = media.build(self.reader, request.images, request.context, request.question, clip=request.clip, **parts)
        elif seen:
            raise PromptError("history does not go with images; leave one of them out.")
        else:
            prompt = text.build(self.tokenizer, request.context, request.question, history=request.history, **parts)
        if saved is not None and prompt.context != _ids_of(saved):
            raise PromptError(
                f"{saved.path}: this chat template puts other tokens before the context than when it was saved; use the "
                "tokenizer that it was saved with, or save it again."
            )
        return prompt

    def shortened(self, request: Request) -> Request:
        """The request with its context shortened, if a method of it does that; `answer` and `read` do it, too. See
        `laconic.engine.shortened`."""
        return shortened(request, self.tokenizer, self.prompt)

    def answer(self, request: Request, on_text: OnText | None = None, at_prompt: AtPrompt | None = None) -> Answer:
        """Answer one request.

        Args:
            on_text: called with every finished piece of the answer's text.
            at_prompt: called when the whole prompt is in the cache and nothing has been decoded.

        Raises:
            LaconicError: a prompt, methods or a budget that do not fit the model.
        """
        with self.conversation(request, on_text, at_prompt) as talk:
            pass
        return talk.answers[0]

    @contextmanager
    def conversation(
        self, request: Request, on_text: OnText | None = None, at_prompt: AtPrompt | None = None
    ) -> Iterator[Conversation]:
        """Answer a request and keep the session open for further questions about the same context. See `answer`."""
        request = self.shortened(request)
        prompt = self.prompt(request)
        if request.mode == "later" and not (prompt.context and prompt.question):
            raise PromptError('mode="later" compresses a context before the question: give both.')
        kept, others = remembered(self.model, self.tokenizer, request, prompt)
        if kept is not None:
            prompt = kept.inside(self.model, prompt)
        with opened(session := self._session(others)) as (memory, notes):
            cache = None if kept is None else kept.cache(self.model)
            talk = Conversation(self.tokenizer, others, prompt, session, memory, notes, cache, kept=kept)
            talk.begin(on_text, at_prompt)
            yield talk

    def read(self, request: Request) -> Context:
        """Read and compress a context once, to ask it many questions.

        Args:
            request: the context, or a saved one, and how it is read and compressed; its question and mode are not used.

        Raises:
            LaconicError: nothing to read, methods or a budget that do not fit, or weights that depend on the prompt.
        """
        if request.clip is not None:
            raise PromptError(
                "a context that is read once cannot hold a video yet; give its frames as images (--as-images)."
            )
        if request.sounds:
            raise PromptError("a context that is read once cannot hold sound yet; ask each question by itself.")
        request = self.shortened(replace(request, mode="later"))
        saved = request.saved
        prompt = None if saved is not None else self.prompt(replace(request, question=request.question or "?"))
        kept = None
        if prompt is not None:
            kept, request = remembered(self.model, self.tokenizer, request, prompt)
        session = self._session(request)
        assert isinstance(session, Session)
        check_askable(session.methods)
        if prompt is not None and not prompt.context:
            raise PromptError("there is nothing to read; give a context, images, or both.")
        if prompt is not None and kept is not None:
            prompt = kept.inside(self.model, prompt)
        with opened(session) as (_, notes):
            if prompt is None:
                assert saved is not None
                session.cache, ids = saved.cache(), _ids_of(saved)
                request = replace(request, context=saved.text, system=saved.system, history=(), images=())
            else:
                ids = prompt.context
                if kept is not None and (of_memory := kept.cache(self.model)) is not None:
                    session.take(of_memory)
                else:
                    read_context(session, ids, request.chunk, prompt.inputs)
            cache = session.cache
            assert cache is not None
            cache.settle()
            stats = charged(session.stats, kept, session.shape)
        images = len(request.images) if saved is None else saved.images
        request = replace(request, images=(), saved=None)
        return Context(self.reader, session, request, images, ids, cache, stats, notes, kept)

    def answer_batch(self, inputs: Mapping[str, Any], request: Request, at_prompt: AtPrompt | None = None) -> list[Answer]:
        """Answer a batch of prompts at once.

        Args:
            inputs: `input_ids` [B, n], `attention_mask` [B, n] (padding, if any, on the left), and the pixels of images.
            request: says how; its own prompt is not used, and the mode is "in view".
            at_prompt: called when all prompts are in the cache and nothing has been decoded.

        Returns:
            an answer for each sequence, cut after its end of turn. All have the same figures, means over the batch; times
            are the batch's, divided by its size.
        """
        if request.mode != "in view" or request.saved is not None:
            raise ValueError('a batch is answered in mode "in view" and without a saved context; ask one by one instead.')
        inputs = on_device(self.model, inputs)
        size = len(inputs["input_ids"])
        with opened(session := self._session(request)) as (memory, notes):
            figures: list[Stats] = []

            def at_first() -> None:
                if at_prompt is not None:
                    at_prompt(session)
                figures.append(_each(session.stats, size))

            began = time.perf_counter()
            rows, clock = generate(session, self.tokenizer, inputs, request, at_first)
            shared: dict[str, Any] = {
                "first_seconds": (clock.first - began) / size,
                "later_seconds": (clock.last - clock.first) / size,
                "compressed": figures[0],
                "prompt": figures[0],
                "final": _each(session.stats, size),
                "peak_memory": memory.peak(),
                "memory_kind": memory.kind,
            }
        return [Answer(**vars(new), **shared, notes=notes, session=session) for new in rows]

    def score(
        self,
        context: Sequence[int],
        continuations: Sequence[Sequence[int]],
        request: Request,
        at_prompt: AtPrompt | None = None,
        dtype: torch.dtype | None = None,
    ) -> Scores:
        """How likely the model finds each of several continuations of one context. The context is compressed alone; the
        continuations are fed to the model and stored whole, each after the context by itself.

        Args:
            context: token ids, at least one. `continuations`: token ids, at least one each.
            request: says with which methods, and what is protected; its prompt, mode and lengths are not used.
            at_prompt: called when the context is in the cache for the first time.
            dtype: in which probabilities are computed; None: that of the logits.
        """
        with opened(session := self._session(request)) as (_, notes):
            found = score(session, context, continuations, at_prompt, dtype)
        return Scores(found, notes)

    def _session(self, request: Request) -> Session | StockSession:
        if request.methods is None:
            return StockSession(self.model)
        methods = request.methods or (() if request.saved is None else request.saved.methods)
        return Session(self.model, methods, request.protect, self.tokenizer, request.count_flops)


def _ids_of(saved: SavedContext) -> list[int]:
    """The token ids of a saved context.

    Raises:
        PromptError: they were not saved.
    """
    if saved.input_ids is None:
        raise PromptError(f"{saved.path} does not say which tokens it holds; save it with input_ids=.")
    ids: list[int] = saved.input_ids[0].tolist()
    return ids


def _each(stats: Stats, size: int) -> Stats:
    """Figures of one sequence of a batch."""
    shared = SHARED if stats.method_flops is None else SHARED + OF_METHODS
    bytes_and_flops = {name: round(getattr(stats, name) / size) for name in shared}
    return replace(stats, **bytes_and_flops, **{name: getattr(stats, name) / size for name in CLOCKS})
