"""How one sample is put to a model: the three modes, each on the users' path, `model.generate` on a session's cache."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, DynamicCache
from transformers.generation.streamers import BaseStreamer

from laconic.families import family_of
from laconic.measure.cost import Shape
from laconic.measure.stats import Stats
from laconic.method import Method
from laconic.session import Session, compress
from laconic.tasks.text.retrieval import Sample, gold_ids, prompt_ids, turn_ids

SPARE_TOKENS = 4
"""An answer may be this much longer than the reference before it is cut."""


@dataclass
class Answer:
    """What came back for one question."""

    text: str
    ids: list[int]
    first: float
    """Seconds from the start of the sample (of the question, in later turns) to its first token."""
    decode: float
    """Seconds from the first token to the last."""


@dataclass
class Outcome:
    """One sample answered.

    Attributes:
        answers: one per turn.
        compressed: figures when the context (in mode aware: the prompt) had been compressed.
        prompt: figures when the first answer token came out: the context and the first question.
        final: figures after the last turn.
    """

    answers: list[Answer] = field(default_factory=list)
    compressed: Stats = field(default_factory=Stats)
    prompt: Stats = field(default_factory=Stats)
    final: Stats = field(default_factory=Stats)


class Plain:
    """The uncompressed model behind the same few calls as a session. Its figures are formulas."""

    def __init__(self, model: PreTrainedModel):
        self.cache: Cache = DynamicCache(config=model.config)
        self._shape = Shape.of(model, family_of(model).stack(model))

    def __enter__(self) -> Plain:
        return self

    def __exit__(self, *error: object) -> None:
        return None

    def hold(self) -> AbstractContextManager[None]:
        """Nothing is ever removed here."""
        return nullcontext()

    @property
    def stats(self) -> Stats:
        """KV bytes and prefill FLOPs of the tokens seen so far, as if they were one prompt."""
        seen, layers = self.cache.get_seq_length(), self._shape.layers
        size = self._shape.kv_bytes([seen] * layers)
        flops = self._shape.prefill_flops([seen] * layers)
        stats = Stats(tokens_in=seen, entries=[float(seen)] * layers, layers=list(range(layers)))
        stats.kv_bytes = stats.kv_bytes_full = stats.kv_bytes_allocated = size
        stats.prefill_flops = stats.prefill_flops_full = flops
        return stats


class Clock(BaseStreamer):
    """Notes when the first and the last token come out, and calls `at_first` then."""

    def __init__(self, at_first: Callable[[], None]):
        self._at_first, self._prompt_came = at_first, False
        self.first = self.last = 0.0

    def put(self, value: torch.Tensor) -> None:
        if not self._prompt_came:  # generate() hands over the prompt before anything else
            self._prompt_came = True
            return
        self.last = time.perf_counter()
        if not self.first:
            self.first = self.last
            self._at_first()

    def end(self) -> None:
        return None


def answer(model: PreTrainedModel, tokenizer: Any, sample: Sample, mode: str, method: Method | None) -> Outcome:
    """Put `sample` to the model in one of `MODES`; ``method=None`` is the uncompressed model."""
    with torch.inference_mode(), Plain(model) if method is None else compress(model, method, tokenizer=tokenizer) as session:
        asker = _Asker(model, tokenizer, sample, session)
        if mode in ("aware", "turns_aware"):
            asker.aware(len(sample.turns) if mode == "turns_aware" else 1)
        else:
            asker.agnostic(len(sample.turns) if mode == "turns" else 1)
        return asker.outcome


class _Asker:
    def __init__(self, model: PreTrainedModel, tokenizer: Any, sample: Sample, session: Session | Plain):
        self.model, self.tokenizer, self.sample, self.session = model, tokenizer, sample, session
        self.outcome = Outcome()
        self.context, self.question = prompt_ids(sample, tokenizer)

    def aware(self, turns: int) -> None:
        """Context and first question at once; further questions are stored whole."""
        began = time.perf_counter()
        past = self.session.cache if isinstance(self.session, Plain) else None
        prompt = [*self.context, *self.question]
        answer = self._generate(prompt, 0, began, past)
        self.outcome.compressed = self.outcome.prompt
        self._later(prompt, answer, turns)

    def agnostic(self, turns: int) -> None:
        """The context alone, then the questions, which are stored whole."""
        began = time.perf_counter()
        ids = torch.tensor([self.context], device=self.model.device)
        past = {"past_key_values": self.session.cache} if isinstance(self.session, Plain) else {}
        few = {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(self.model.forward).parameters else {}
        self.model(input_ids=ids, use_cache=True, **past, **few)  # type: ignore[operator]
        self.outcome.compressed = self.session.stats
        prompt = [*self.context, *self.question]
        with self.session.hold():
            answer = self._generate(prompt, 0, began, self.session.cache)
        self._later(prompt, answer, turns)

    def _later(self, prompt: list[int], answer: list[int], turns: int) -> None:
        """Questions from the second on, behind `prompt` and the `answer` to it."""
        so_far, end = [*prompt, *answer], self.tokenizer.eos_token_id
        with self.session.hold():
            for turn in range(1, turns):
                if so_far[-1] != end:  # an answer that was cut still ends its turn
                    so_far.append(end)
                so_far += turn_ids(self.sample, self.tokenizer, turn)
                began = time.perf_counter()
                so_far += self._generate(so_far, turn, began, self.session.cache)

    def _generate(self, ids: list[int], turn: int, began: float, past: Cache | None) -> list[int]:
        """Answer `turn` behind `ids`, greedily; its token ids."""
        clock = Clock(self._first_token)
        room = len(gold_ids(self.sample, self.tokenizer, turn)) + SPARE_TOKENS
        out = self.model.generate(  # type: ignore[operator]
            torch.tensor([ids], device=self.model.device),
            past_key_values=past,
            max_new_tokens=room,
            do_sample=False,
            num_beams=1,
            temperature=None,
            top_p=None,
            top_k=None,
            pad_token_id=self.tokenizer.pad_token_id,
            streamer=clock,
        )
        new = out[0, len(ids) :].tolist()
        text = self.tokenizer.decode(new, skip_special_tokens=True)
        self.outcome.answers.append(Answer(text, new, clock.first - began, clock.last - clock.first))
        self.outcome.final = self.session.stats
        return new

    def _first_token(self) -> None:
        if not self.outcome.answers:
            self.outcome.prompt = self.session.stats
