"""One document and its questions under many methods: read once, cut by each method, asked by teacher forcing.

Whether a whole answer is what greedy decoding would say takes one pass over question and answer: every token of the answer
must be the most likely one after those before it. Methods that act on decoded tokens get an answer in view token by token
instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from laconic.engine.engine import Engine
from laconic.engine.generation import read_context
from laconic.engine.readings import Readings
from laconic.engine.request import Mode, Request
from laconic.errors import UnsupportedModelError
from laconic.measure.stats import Stats
from laconic.method import Method
from laconic.prompts.text import Prompt, build
from laconic.session import Session
from laconic.shortening.contract import to_apply
from laconic.tasks import Sample

GREEDY_TOKENS = 32
"""Length of the uncompressed model's own continuation that a compressed one is compared with."""


@dataclass
class Examined:
    """One method on one document.

    Attributes:
        figures: when the budget is spent, one per cache: one for all questions, or one for each that was in view.
        right: of each question that was asked, whether the whole answer is right; of a continuation, the share of tokens in
            which greedy decoding agrees with the uncompressed model. `outputs`: the most likely tokens, as text.
        asked: numbers of the questions.
        recorded: the pass that read the prompt was a recorded one, so that times of this run say nothing.
        nll: of a continuation, mean negative log-likelihood of its tokens, in nats.
    """

    figures: list[Stats]
    right: list[float]
    outputs: list[str]
    asked: list[int]
    recorded: bool
    nll: float | None = None


class Examination:
    """A sample's context and questions, ready to be asked under one method after another.

    Args:
        engine: of the model.
        sample: its turns are asked one by one, each right after the context; a turn without a question is the context's
            true continuation, which takes no chat template.
        mode: "in view": context and question are compressed together, so that every question has a cache of its own.
            "later": the context is compressed once, and each question is asked of the same cache.
        most: this many questions, the first ones; None: all.

    Attributes:
        known: numbers of the questions that the uncompressed model answers; only these are asked of others.
    """

    def __init__(self, engine: Engine, sample: Sample, mode: Mode, most: int | None = None):
        self.engine, self.mode, self.sample = engine, mode, sample
        self.turns = sample.turns[:most]
        self.likelihood = not self.turns[0].question
        encode = engine.tokenizer.encode
        self.golds = [encode(turn.gold.removeprefix(turn.prefix), add_special_tokens=False) for turn in self.turns]
        self.prompts = self._prompts(sample.context)
        self._readings = Readings()
        self.known = list(range(len(self.turns)))
        self.uncompressed = self.ask(None)
        self.known = [i for i, right in zip(self.known, self.uncompressed.right, strict=True) if right]
        self._readings.forget_all_but(self._places)

    def _prompts(self, context: str) -> list[Prompt]:
        """The prompt of each question about `context`; of a continuation, the context alone."""
        tokenizer = self.engine.tokenizer
        if self.likelihood:
            return [Prompt(tokenizer.encode(context, add_special_tokens=False), [], False, context)]
        found = [build(tokenizer, context, turn.question, answer_prefix=turn.prefix) for turn in self.turns]
        if any(prompt.context != found[0].context for prompt in found):
            raise ValueError(
                f"sample {self.sample.number} of {self.sample.task}: the tokenizer joins its context with some question."
            )
        return found

    def _shortened(self, method: Method | None, place: int) -> tuple[Method | None, list[Prompt]]:
        """The method as it goes into a session, and the prompts: of a shorter context where the method shortens texts."""
        if method is None or not to_apply([method]):
            return method, self.prompts
        request = Request(context=self.sample.context, question=self.turns[place].question, methods=[method], mode=self.mode)
        short = self.engine.shortened(request)
        assert short.methods
        return short.methods[0], self._prompts(short.context)

    @property
    def _places(self) -> list[int]:
        """The caches that are needed: one for all questions, or one for each."""
        return self.known if self.mode == "in view" else [0]

    def ask(self, method: Method | None) -> Examined:
        """Put the questions to the model under `method`; None: uncompressed.

        Raises:
            LaconicError: the method does not fit the model, or the budget does not fit the prompt.
        """
        found = Examined([], [], [], list(self.known), recorded=False)
        for place in self._places:
            applied, prompts = self._shortened(method, place)
            methods, tokenizer = [] if applied is None else [applied], self.engine.tokenizer
            session = Session(self.engine.model, methods, tokenizer=tokenizer, count_flops=True)
            with torch.inference_mode(), session:
                first = self._read(session, applied, place, prompts[place], found)
                found.figures.append(session.stats)
                if self.mode == "in view":
                    said = [forced_alone(session, method, first, self.golds[place])]
                elif self.likelihood:
                    self._continue(session, method, first, found)
                    continue
                else:
                    questions = [prompts[i].question for i in self.known]
                    said = forced(session, questions, [self.golds[i] for i in self.known])
            for gold, tokens in zip(self._golds(place), said, strict=True):
                found.right.append(float(tokens == gold))
                found.outputs.append(self.engine.tokenizer.decode(tokens))
        return found

    def _golds(self, place: int) -> list[list[int]]:
        return [self.golds[place]] if self.mode == "in view" else [self.golds[i] for i in self.known]

    def _read(self, session: Session, method: Method | None, place: int, prompt: Prompt, found: Examined) -> Tensor:
        """Read the context, or the whole prompt, into the session's cache -> logits of what follows, [1, V]."""
        ids = prompt.ids if self.mode == "in view" else prompt.context
        if method is not None and method.before_reading:  # nobody else reads this prompt
            return read_context(session, ids)
        logits, recorded = self._readings.read(session, method, place, ids)
        found.recorded |= recorded
        return logits

    def _continue(self, session: Session, method: Method | None, first: Tensor, found: Examined) -> None:
        """Score the true continuation, and how far greedy decoding agrees with the uncompressed model."""
        gold = self.golds[0]
        if method is None:
            self.greedy = _greedy(session, first, GREEDY_TOKENS)
        rows = [gold, self.greedy]
        logits = _logits(session, [row[:-1] for row in rows], [len(row) - 1 for row in rows])
        for_gold, for_greedy = (torch.cat([first, more]) for more in logits)
        likely = for_gold.float().log_softmax(-1).gather(-1, torch.tensor(gold, device=first.device)[:, None])
        said = for_greedy.argmax(-1).tolist()
        found.nll = -float(likely.mean())
        found.right = [sum(a == b for a, b in zip(said, self.greedy, strict=True)) / len(said)]
        found.outputs = [self.engine.tokenizer.decode(said)]


def forced(session: Session, questions: Sequence[list[int]], golds: Sequence[list[int]]) -> list[list[int]]:
    """The most likely tokens in place of each reference answer, after its question on the cache as it is now."""
    rows = [question + gold[:-1] for question, gold in zip(questions, golds, strict=True)]
    return [logits.argmax(-1).tolist() for logits in _logits(session, rows, [len(gold) for gold in golds])]


def forced_alone(session: Session, method: Method | None, first: Tensor, gold: list[int]) -> list[int]:
    """The same for one answer that follows right on what the cache holds; `first` [1, V] predicts its first token.

    Methods that evict or pack while tokens are decoded get it token by token, as `generate()` would give it to them.
    """
    cache = session.cache
    logits, acts = [first], method is not None and (getattr(method, "evicts_while_decoding", False) or method.packs)
    pieces = [[token] for token in gold[:-1]] if acts else [gold[:-1]] if len(gold) > 1 else []
    for piece in pieces:
        with nullcontext() if acts else session.hold():  # one token is decoded; several are no prompt to compress again
            ids = torch.tensor([piece], device=first.device)
            logits.append(session.model(input_ids=ids, past_key_values=cache, use_cache=True).logits[0])
    said: list[int] = torch.cat(logits).argmax(-1).tolist()
    return said


def _logits(session: Session, rows: Sequence[list[int]], wanted: Sequence[int]) -> list[Tensor]:
    """Read each of `rows` after what the cache holds, side by side -> logits of the last ``wanted[i]`` tokens of each."""
    cache, device = session.cache, session.model.device
    assert cache is not None
    if any(not hasattr(layer, "batch_repeat_interleave") for layer in cache.layers):
        raise UnsupportedModelError(
            f"{type(session.model).__name__} has layers whose state cannot be repeated: several questions cannot be put to "
            "one reading side by side; ask them one by one with laconic.read()."
        )
    seen, longest = cache.seen, max(map(len, rows))
    with session.hold():
        cache.batch_repeat_interleave(len(rows))
        short = torch.tensor([longest - len(row) for row in rows], device=device)[:, None]
        places = torch.arange(longest, device=device)[None]
        ids = torch.tensor([[0] * (longest - len(row)) + list(row) for row in rows], device=device)
        logits = session.model(
            input_ids=ids,
            attention_mask=(places >= short).long(),
            position_ids=seen + (places - short).clamp(min=0),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=max(wanted),
        ).logits
    return [logits[i, logits.shape[1] - count :] for i, count in enumerate(wanted)]


def _greedy(session: Session, first: Tensor, count: int) -> list[int]:
    """`count` tokens of greedy decoding; the uncompressed cache is put back afterwards."""
    cache, said = session.cache, [int(first.argmax())]
    assert cache is not None
    while len(said) < count:
        ids = torch.tensor([said[-1:]], device=first.device)
        said.append(int(session.model(input_ids=ids, past_key_values=cache, use_cache=True).logits[0, -1].argmax()))
    cache.crop(-(count - 1))
    return said
