"""A context that is read and compressed once, and asked many questions."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import PreTrainedModel

from laconic.cache.cache import CompressedCache
from laconic.cache.fork import held
from laconic.cache.saved import SavedContext, load, save
from laconic.engine.conversation import Conversation, OnText
from laconic.engine.generation import ends_of_turn, opened
from laconic.engine.request import Answer, Request
from laconic.errors import SavedContextError, SessionError
from laconic.loading import tokenizer_of
from laconic.measure.stats import Stats
from laconic.memory.memory import Memory
from laconic.memory.store import SegmentStore
from laconic.method import Method, Protect
from laconic.prompts import media, text
from laconic.prompts.files import read_text
from laconic.prompts.text import Prompt, PromptError
from laconic.prompts.turns import following
from laconic.session import Session
from laconic.weights.hooks import PerPrompt


def read(
    model: PreTrainedModel,
    reader: Any,
    context: str | Path | SavedContext | Memory = "",
    *methods: Method | str,
    images: Sequence[Image.Image] = (),
    system: str | None = None,
    protect: Protect = (),
    chunk: int | None = None,
    store: SegmentStore | bool = False,
) -> Context:
    """Read a context once, and compress it before any question is known.

    Args:
        model, reader: as `laconic.load` gives them: a tokenizer, or the processor of a vision language model.
        context: text; a `Path` to a UTF-8 file that holds it; what `laconic.load_cache` opened; or a `laconic.Memory`.
        methods: what compresses, or its text, ``"NAME:keep=0.25"``; none: everything is stored. Those of a saved context are
            in the file.
        images: upright, RGB, shown before the text; see the guide. `system`: the system message.
        protect: what no method may remove, see `laconic.compress`.
        chunk: read in pieces of this many tokens, each of which is compressed; not with images, nor of a saved context.
        store: looked into before the context is read, and where it is kept; True: the one in laconic's cache folder. The key
            is made of all that decides what is kept: tokens, methods, weights, versions.

    Raises:
        LaconicError: nothing to read, a file that is no text, a file's name as a str, methods or a budget that do not fit,
            or weights that depend on the prompt.

    Example:
        >>> context = laconic.read(model, tokenizer, report, method)
        >>> context.ask("What was agreed?").text
        >>> context.ask("And by whom?", follow_up=True).text
    """
    from laconic.engine.engine import Engine
    from laconic.engine.stored import read_stored

    saved = context if isinstance(context, SavedContext) else None
    if saved is not None and (methods or images or system or protect or chunk is not None or store):
        raise PromptError(
            "a saved context has been read, and comes with its methods, images and system message; give the file alone."
        )
    request = Request(
        context=_text(context) if isinstance(context, (str, Path)) else "",
        saved=saved,
        memory=context if isinstance(context, Memory) else None,
        methods=methods,  # type: ignore[arg-type]
        images=images,
        system=system,
        protect=protect,
        chunk=chunk,
    )
    engine = Engine(model, reader)
    if not store:
        return engine.read(request)
    return read_stored(engine, request, SegmentStore() if store is True else store)


def _text(context: str | Path) -> str:
    if isinstance(context, Path):
        return read_text(context)
    if os.path.isfile(context):
        raise PromptError(
            f"{context!r} is text to a model, and the name of a file; give Path({context!r}) to read the file."
        )
    return context


@dataclass
class Context:
    """What `laconic.read` has read. Every question is asked of a fork, so it sees the compressed context alone, as if that
    had just been read. Between questions the model is free and as it was.

    Attributes:
        session: with the context's methods; open while a question is answered.
        request: how the context was read, and how it is asked unless `ask` says otherwise.
        ids: the context's token ids, the opening of the chat template included; `images`: how many it shows.
        kept: the memory that stands for the context, where a method has made one.
        cache: the compressed context. `stats`: figures once it was read; `notes`: what methods warned about.
        stored: it came from a store, and nothing was read.
    """

    reader: Any
    session: Session
    request: Request
    images: int
    ids: list[int]
    cache: CompressedCache
    stats: Stats
    notes: list[str]
    kept: Memory | None = None
    stored: bool = False
    _talk: Conversation | None = field(default=None, repr=False)

    def __repr__(self) -> str:
        stats, names = self.stats, " + ".join(f"{m.name}:{m.budget}" for m in self.session.methods) or "uncompressed"
        return f"Context({len(self.ids):,} tokens, {stats.kv_bytes:,} of {stats.kv_bytes_full:,} KV bytes, {names})"

    @property
    def tokenizer(self) -> Any:
        """The reader's."""
        return tokenizer_of(self.reader)

    @property
    def allocated(self) -> int:
        """Bytes held for the context and the latest conversation; what they share counts once."""
        return held([self.cache] if self._talk is None else [self.cache, self._talk.cache])

    def ask(
        self,
        question: str,
        *,
        follow_up: bool = False,
        max_new_tokens: int | None = None,
        answer_prefix: str = "",
        on_text: OnText | None = None,
        **options: Any,
    ) -> Answer:
        """Answer a question about the context. It is stored whole, and nothing is removed while it is answered.

        Args:
            follow_up: with the conversation since the latest question that was no follow-up in mind; else nothing but the
                context.
            max_new_tokens: longest answer (64).
            answer_prefix: opens the answer, and the model continues from there; not of a follow-up.
            on_text: called with every finished piece of the answer.
            options: of `generate()`: do_sample=True, num_beams=4 ...

        Raises:
            PromptError: an empty question, a follow-up to nothing or with `answer_prefix`, or a template that refuses it.
        """
        if not question.strip():
            raise PromptError("the question is empty; ask something.")
        changes: dict[str, Any] = {} if max_new_tokens is None else {"max_new_tokens": max_new_tokens}
        request = replace(self.request, **changes, options={**self.request.options, **options}, mode="later")
        if follow_up and answer_prefix:
            raise PromptError(
                f"answer_prefix={answer_prefix!r} does not go with follow_up=True; leave one of them out, or put into the "
                "question how its answer should begin."
            )
        if follow_up:
            return self._follow(question, request, on_text)
        prompt = self.prompt(question, answer_prefix)
        with opened(self.session) as (memory, notes):
            kept = None if self.kept is None else replace(self.kept, seconds=0.0, flops=0)  # paid for by the reading
            talk = Conversation(self.tokenizer, request, prompt, self.session, memory, notes, self.cache.fork(), kept=kept)
            talk.begin(on_text)
        self._talk = talk
        return talk.answers[0]

    def _follow(self, question: str, request: Request, on_text: OnText | None) -> Answer:
        talk = self._talk
        if talk is None:
            raise PromptError("there is no answer yet that this question could follow; ask the first one without follow_up.")
        ends = ends_of_turn(self.session.model) or [self.tokenizer.eos_token_id]
        turn = following(self.tokenizer, question, ends)
        self._talk = None  # a pass that breaks off leaves some layers with its tokens and others without
        with opened(self.session) as (talk.memory, talk.notes):
            talk.request = request
            answer = talk.ask(turn.ids, end=turn.end, on_text=on_text)
        self._talk = talk
        return answer

    def prompt(self, question: str, answer_prefix: str = "") -> Prompt:
        """The context and one question, through the chat template.

        Raises:
            PromptError: the template makes another context of the same text.
        """
        parts: dict[str, Any] = {"answer_prefix": answer_prefix, "system": self.request.system}
        if self.images and self.kept is None:
            return media.continued(self.reader, self.ids, self.images, self.request.context, question, **parts)
        if self.images and self.kept is not None:
            prompt = self.kept.prompt(self.reader, question, **parts)
        elif self.reader is not self.tokenizer and getattr(self.reader, "chat_template", None):
            prompt = media.build(self.reader, (), self.request.context, question, **parts)
        else:
            prompt = text.build(self.tokenizer, self.request.context, question, history=self.request.history, **parts)
        if self.kept is not None:
            prompt = self.kept.inside(self.session.model, prompt)
        if prompt.context != self.ids:
            raise PromptError("the chat template puts other tokens before the context than when it was read.")
        return prompt

    def fork(self) -> CompressedCache:
        """A cache of the context for calls of your own: ``generate(ids, past_key_values=context.fork())`` inside
        ``with context.session, context.session.hold():``, where `ids` begin with `Context.ids`."""
        return self.cache.fork()

    def rewind(self) -> None:
        """Forget the conversation: the next question can be no follow-up."""
        self._talk = None

    def save(self, path: str | Path) -> None:
        """Write the compressed context to one file, without what was asked; `Context.load` opens it in another process.

        Raises:
            SavedContextError: a layer cannot be saved, soft tokens stand for the context, or the file cannot be written.
        """
        if self.kept is not None:
            raise SavedContextError(
                f"{self.kept.method.name} has made a memory of this context; save that: context.kept.save({str(path)!r})."
            )
        save(
            self.cache,
            path,
            model=self.session.model,
            methods=self.session.methods,
            tokenizer=self.tokenizer,
            input_ids=torch.tensor([self.ids]),
            text=self.request.context,
            system=self.request.system,
            images=self.images,
        )

    @staticmethod
    def load(path: str | Path, model: PreTrainedModel, reader: Any) -> Context:
        """The context in a file, ready to be asked; the text is not read again.

        Raises:
            SavedContextError: no such file, truncated or altered, or made with another model, precision or tokenizer.
        """
        return read(model, reader, load(path, model, tokenizer_of(reader)))


def check_askable(methods: Sequence[Method]) -> None:
    """Refuse methods whose weights belong to the prompt that ran last.

    Raises:
        SessionError: there is one.
    """
    for method in methods:
        if isinstance(method, PerPrompt) and not method.neutral:
            raise SessionError(
                f"the weights of {method.name} depend on the prompt and go when a session closes, so its context cannot be "
                "asked later; ask inside one `with laconic.compress(...)`."
            )
