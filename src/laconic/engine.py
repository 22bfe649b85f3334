"""One path from a prompt to an answer and what it cost, on a compressed model or on the stock one.

Example:
    >>> engine = Engine(*laconic.load("testbed/lm"))
    >>> answer = engine.answer(Request(context=notes, question="What is the code?", methods=[method]))
    >>> answer.text, answer.final.kv_bytes
"""

from __future__ import annotations

import inspect
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from transformers import PreTrainedModel

from laconic.loading import tokenizer_of
from laconic.measure.memory import Memory
from laconic.measure.stats import Stats
from laconic.measure.token_clock import TokenClock, Words
from laconic.prompts import media, text
from laconic.prompts.inputs import on_device
from laconic.prompts.text import Prompt, PromptError
from laconic.request import Answer as Answer
from laconic.request import Request as Request
from laconic.session import Session
from laconic.stock import StockSession

AtPrompt = Callable[[Session | StockSession], None]
SHARED = ("kv_bytes", "kv_bytes_full", "kv_bytes_allocated", "prefill_flops", "prefill_flops_full", "decode_flops")
CLOCKS = ("encoder_seconds", "prefill_seconds", "decode_seconds", "compress_seconds")


class Engine:
    """Answers requests on one model.

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
            MediaError: images that cannot be shown.
        """
        if request.prompt is not None:
            return request.prompt
        saved = request.saved
        context = request.context if saved is None else saved.text
        parts: dict[str, Any] = {
            "answer_prefix": request.answer_prefix,
            "system": request.system if saved is None else saved.system,
        }
        reads_images = self.reader is not self.tokenizer
        if reads_images and (request.images or getattr(self.reader, "chat_template", None)):
            prompt = media.build(self.reader, request.images, context, request.question, **parts)
        else:
            prompt = text.build(self.tokenizer, context, request.question, **parts)
        if saved is not None and (saved.input_ids is None or prompt.context != saved.input_ids[0].tolist()):
            raise PromptError(
                f"{saved.path}: this chat template puts other tokens before the context than when it was saved; use the "
                "tokenizer that it was saved with, or save it again."
            )
        return prompt

    def answer(
        self, request: Request, on_text: Callable[[str], None] | None = None, at_prompt: AtPrompt | None = None
    ) -> Answer:
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
        self, request: Request, on_text: Callable[[str], None] | None = None, at_prompt: AtPrompt | None = None
    ) -> Iterator[Conversation]:
        """Answer a request and keep the session open for further questions about the same context. See `answer`."""
        prompt = self.prompt(request)
        if request.mode == "later" and not (prompt.context and prompt.question):
            raise PromptError('mode="later" compresses a context before the question: give both.')
        with self._session(request) as opened:
            talk = Conversation(self, request, prompt, *opened)
            talk._begin(on_text, at_prompt)
            yield talk

    def answer_batch(self, inputs: Mapping[str, Any], request: Request) -> list[Answer]:
        """Answer a batch of prompts at once.

        Args:
            inputs: `input_ids` [B, n], `attention_mask` [B, n] (padding, if any, on the left), and the pixels of images.
            request: says how; its own prompt is not used, and the mode is "in view".

        Returns:
            an answer for each sequence, cut after its end of turn. All have the same figures, means over the batch; times
            are the batch's, divided by its size.
        """
        if request.mode != "in view" or request.saved is not None:
            raise ValueError('a batch is answered in mode "in view" and without a saved context; ask one by one instead.')
        inputs = on_device(self.model, inputs)
        size = len(inputs["input_ids"])
        with self._session(request) as (session, memory, notes):
            figures: list[Stats] = []
            began = time.perf_counter()
            rows, clock = self._generate(session, inputs, request, lambda: figures.append(_each(session.stats, size)))
            final = _each(session.stats, size)
            peak = memory.peak()
        first, later = (clock.first - began) / size, (clock.last - clock.first) / size
        return [
            Answer(*self._read(ids), first, later, figures[0], figures[0], final, peak, memory.kind, notes, session)
            for ids in rows
        ]

    @contextmanager
    def _session(self, request: Request) -> Iterator[tuple[Session | StockSession, Memory, list[str]]]:
        """An open session, a clock of its memory, and the list that its warnings go into."""
        if request.methods is None:
            session: Session | StockSession = StockSession(self.model)
        else:
            session = Session(self.model, request.methods, request.protect, self.tokenizer)
        notes: list[str] = []
        with Memory() as memory, _collected(notes), torch.inference_mode(), session:
            yield session, memory, notes

    def _generate(
        self,
        session: Session | StockSession,
        inputs: Mapping[str, Any],
        request: Request,
        at_first: Callable[[], None],
        on_text: Callable[[str], None] | None = None,
    ) -> tuple[list[list[int]], TokenClock]:
        """Run `generate()` on the session's cache; new ids of each sequence up to the end of its turn."""
        if request.seed is not None:
            torch.manual_seed(request.seed)
        options: dict[str, Any] = {"do_sample": request.sample, "num_beams": 1, "max_new_tokens": request.max_new_tokens}
        if request.sample:
            options["temperature"] = 1.0 if request.temperature is None else request.temperature
        else:
            options |= {"temperature": None, "top_p": None, "top_k": None}
        cache = session.cache
        if request.chunk and (cache is None or cache.get_seq_length() == 0):
            options["prefill_chunk_size"] = request.chunk
        if self.tokenizer.pad_token_id is not None:
            options["pad_token_id"] = self.tokenizer.pad_token_id
        clock = TokenClock(at_first, None if on_text is None else Words(self.tokenizer, on_text))
        out = self.model.generate(  # type: ignore[operator]
            **inputs, past_key_values=cache, use_cache=True, streamer=clock, **options
        )
        new = out[:, inputs["input_ids"].shape[1] :].tolist()
        return [self._until_end(ids) for ids in new], clock

    def _ends(self) -> set[int]:
        """Ids that end a turn."""
        ends = self.model.generation_config.eos_token_id  # type: ignore[union-attr]
        return {ends} if isinstance(ends, int) else set(ends or ())

    def _until_end(self, ids: list[int]) -> list[int]:
        """`ids` up to the end of the turn; what follows is padding, while others of the batch go on."""
        ends = self._ends()
        stop = next((i + 1 for i, token in enumerate(ids) if token in ends), len(ids))
        return ids[:stop]

    def _read(self, ids: list[int]) -> tuple[str, list[int], str]:
        """Text, ids and finish of an answer."""
        finish = "eos" if ids and ids[-1] in self._ends() else "length"
        return self.tokenizer.decode(ids, skip_special_tokens=True), ids, finish


@dataclass
class Conversation:
    """A context in an open session, and the questions asked about it.

    Attributes:
        prompt: of the first question; `answers`: so far.
    """

    engine: Engine
    request: Request
    prompt: Prompt
    session: Session | StockSession
    memory: Memory
    notes: list[str]
    answers: list[Answer] = field(default_factory=list)
    _ids: list[int] = field(default_factory=list)
    _figures: list[Stats] = field(default_factory=list)

    def ask(self, ids: list[int], max_new_tokens: int | None = None) -> Answer:
        """Ask a further question. It is stored whole, and nothing is removed while it is answered.

        Args:
            ids: what follows the last answer's end of turn: the user's turn and the opening of the next answer.
        """
        end = self.engine.tokenizer.eos_token_id
        if self._ids[-1] != end:  # an answer that was cut still ends its turn
            self._ids.append(end)
        self._ids += ids
        request = self.request if max_new_tokens is None else replace(self.request, max_new_tokens=max_new_tokens)
        with self.session.hold():
            return self._answer(request, time.perf_counter(), {})

    def _begin(self, on_text: Callable[[str], None] | None, at_prompt: AtPrompt | None) -> None:
        """Read the context, if it goes first, and answer the first question."""
        request, session = self.request, self.session
        self._ids = list(self.prompt.ids)
        inputs = on_device(self.engine.model, self.prompt.inputs)
        began = time.perf_counter()
        goes_first = request.saved is not None or request.mode == "later"
        if request.saved is not None:
            session.cache = request.saved.cache()  # type: ignore[assignment]
        elif goes_first:
            read_context(session, self.prompt.context, request.chunk, self.prompt.inputs)
        if goes_first:
            self._figures.append(session.stats)
        # what came first is spent by now: the question is stored whole
        with session.hold() if goes_first else nullcontext():
            self._answer(request, began, {} if goes_first else inputs, on_text, at_prompt)

    def _answer(
        self,
        request: Request,
        began: float,
        inputs: Mapping[str, Any],
        on_text: Callable[[str], None] | None = None,
        at_prompt: AtPrompt | None = None,
    ) -> Answer:
        ids = torch.tensor([self._ids], device=self.engine.model.device)
        given = {"input_ids": ids, "attention_mask": torch.ones_like(ids), **inputs}

        def at_first() -> None:
            if self.answers:
                return
            if at_prompt is not None:
                at_prompt(self.session)
            self._figures.append(self.session.stats)

        (new,), clock = self.engine._generate(self.session, given, request, at_first, on_text)
        first, later = clock.first - began, clock.last - clock.first
        figures = self._figures[0], self._figures[-1], self.session.stats
        answer = Answer(
            *self.engine._read(new), first, later, *figures, self.memory.peak(), self.memory.kind, self.notes, self.session
        )
        self.answers.append(answer)
        self._ids += new
        return answer


def read_context(
    session: Session | StockSession, ids: list[int], chunk: int | None = None, inputs: Mapping[str, Any] | None = None
) -> None:
    """Read a context into the cache of an open session.

    Args:
        chunk: in pieces of so many tokens; not with images.
        inputs: what the model gets beside the ids: the pixels of images and the like.
    """
    model = session.model
    given = on_device(model, inputs or {}, len(ids))
    if "logits_to_keep" in inspect.signature(model.forward).parameters:
        given["logits_to_keep"] = 1
    size = chunk or len(ids)
    with torch.no_grad():
        for start in range(0, len(ids), size):
            piece = torch.tensor([ids[start : start + size]], device=model.device)
            # a session starts with a cache of its own, the stock model with the one that it was given
            past = session.cache if start or isinstance(session, StockSession) else None
            model(input_ids=piece, past_key_values=past, use_cache=True, **given)


def _each(stats: Stats, size: int) -> Stats:
    """Figures of one sequence of a batch."""
    bytes_and_flops = {name: round(getattr(stats, name) / size) for name in SHARED}
    return replace(stats, **bytes_and_flops, **{name: getattr(stats, name) / size for name in CLOCKS})


@contextmanager
def _collected(notes: list[str]) -> Iterator[None]:
    """Each different warning once into `notes`, in the order in which they came; warnings for programmers are dropped."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        yield
    notes += dict.fromkeys(str(w.message) for w in caught if issubclass(w.category, UserWarning))
