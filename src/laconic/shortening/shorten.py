"""`laconic.shorten(text, method)`: a text without what a method finds dispensable, for any model that reads text."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from laconic.errors import BudgetError
from laconic.method import Protect, create_method
from laconic.prompts.text import PromptError, check_text
from laconic.shortening.contract import PromptMethod
from laconic.shortening.forced import forced, protected_spans
from laconic.shortening.pieces import Pieces, Span, count, words
from laconic.shortening.source import Source
from laconic.shortening.tags import Part, parts

BETWEEN = "\n\n"
"""Between documents that are given one by one."""


@dataclass(frozen=True)
class Shortened:
    """A text, and what stayed of it.

    Attributes:
        pieces: tokens, words or the like, of which the original is made. `kept`: numbers of those that stay, in the order in
            which they are read.
        asked: share of the tokens that the budget asks for.
        tokens_in, tokens_out: tokens before and after, as the tokenizer counts that was given for the model that will read
            the text; without one the scorer's, or words where there is no scorer either (`unit` says which).
        scorer_tokens: the same two by the scorer's tokenizer; None without a scorer.
        scorer: its name; empty without one. `flops`: what it ran.
        seconds: of the whole work, loading the scorer aside.
    """

    method: str
    pieces: tuple[str, ...]
    kept: tuple[int, ...]
    asked: float
    unit: str
    tokens_in: int
    tokens_out: int
    scorer_tokens: tuple[int, int] | None = None
    scorer: str = ""
    flops: int = 0
    seconds: float = 0.0

    @property
    def text(self) -> str:
        """What stayed; where documents have changed their order, with a blank line between them."""
        return joined(self.pieces, self.kept)

    @property
    def original(self) -> str:
        """What was given, without tags."""
        return "".join(self.pieces)

    @property
    def achieved(self) -> float:
        """Share of the tokens that stayed."""
        return self.tokens_out / self.tokens_in

    def __str__(self) -> str:
        return self.text


def shorten(
    text: str | Sequence[str],
    method: PromptMethod | str,
    *,
    question: str = "",
    protect: Protect = (),
    tokenizer: Any | None = None,
    spans: Sequence[Span] = (),
) -> Shortened:
    """Shorten a text before any model reads it.

    Args:
        text: one text, or several documents, which are joined by blank lines.
        method: what chooses, such as an object, or its text, ``"NAME:keep=0.3"``.
        question: what will be asked about the text; some methods need it. It is not part of the text and never cut.
        protect: strings of the text that stay. They count against the budget.
        tokenizer: of the model that will read the text: budgets in tokens and the figures are then in its tokens.
        spans: characters of the text that stay.

    Raises:
        PromptError: there is no text, or the method needs a question.
        ProtectError: what is to be protected is not in the text.
        BudgetError: a budget that is too small for what must stay, or a wrong tag.

    Example:
        >>> short = laconic.shorten(report, "NAME:keep=0.3", tokenizer=tokenizer)
        >>> short.text, short.tokens_in, short.tokens_out
    """
    method = _checked(method)
    documents = [text] if isinstance(text, str) else list(text)
    for document in documents:
        check_text("text", document)
    if not any(document.strip() for document in documents):
        raise PromptError("the text is empty: there is nothing to shorten.")
    if method.needs_question and not question.strip():
        raise PromptError(
            f"{method.name} needs the question that will be asked about the text; give question= (--question on the "
            "command line)."
        )
    check_text("question", question)
    if method.tags and len(documents) > 1:
        raise PromptError(f"tags={method.tags!r} go with one text; join the {len(documents)} documents, or leave tags= out.")
    whole = BETWEEN.join(documents)
    divided = parts(whole, method.tags) if method.tags else [Part(whole)]
    whole = "".join(part.text for part in divided)
    scorer = None if method.neutral and not method.tags else method.opened()
    began = time.perf_counter()
    spans = [*spans, *protected_spans(whole, method.protect), *protected_spans(whole, protect)]
    counter = tokenizer or (None if scorer is None else scorer.tokenizer)
    free = sum(count(part.text, counter) for part in divided if part.keep is None)
    share = method.budget.share([free], 1) if free else 1.0
    pieces: list[str] = []
    kept: list[int] = []
    at = 0
    for part in divided:
        here = [(max(start - at, 0), min(stop - at, len(part.text))) for start, stop in spans]
        here = [span for span in here if span[0] < span[1]]
        own = [part.text] if method.tags else documents
        split, stay = _kept(own, method, part.keep or share, question, here, tokenizer, scorer)
        kept += [len(pieces) + number for number in stay]
        pieces += split
        at += len(part.text)
    seconds = time.perf_counter() - began
    short = joined(pieces, kept)
    return Shortened(
        method=method.name,
        pieces=tuple(pieces),
        kept=tuple(kept),
        asked=share,
        unit="words" if counter is None else "tokens",
        tokens_in=count(whole, counter),
        tokens_out=count(short, counter),
        scorer_tokens=None if scorer is None else (count(whole, scorer.tokenizer), count(short, scorer.tokenizer)),
        scorer="" if scorer is None else scorer.name,
        flops=0 if scorer is None else scorer.flops,
        seconds=seconds,
    )


def joined(pieces: Sequence[str], kept: Sequence[int]) -> str:
    """The text of the pieces with the numbers `kept`, in that order."""
    found: list[str] = []
    before = -1
    for number in kept:
        if number < before:
            found.append(BETWEEN)
        found.append(pieces[number])
        before = number
    return "".join(found)


def _checked(method: PromptMethod | str) -> PromptMethod:
    found = create_method(method) if isinstance(method, str) else method
    if not isinstance(found, PromptMethod):
        raise PromptError(
            f"{getattr(found, 'name', found)!r} does not shorten text; `laconic methods` lists those of the site 'prompt'."
        )
    return found


def _kept(
    documents: Sequence[str],
    method: PromptMethod,
    share: float,
    question: str,
    spans: Sequence[Span],
    tokenizer: Any | None,
    scorer: Any,
) -> tuple[Pieces, Sequence[int]]:
    """The pieces of the joined documents, and the numbers of those that stay."""
    text = BETWEEN.join(documents)
    if share == 1 or not text.strip():
        pieces = words(text, tokenizer)
        return pieces, range(len(pieces))
    pieces = method.split(text, tokenizer, scorer)
    budget = max(1, round(share * sum(pieces.sizes)))
    stay = forced(pieces, spans, method.forced_strings, method.digits)
    if pieces.size(stay) > budget:
        raise BudgetError(
            f"{method.name}: {pieces.size(stay)} tokens are protected or forced, but the budget leaves {budget} of "
            f"{sum(pieces.sizes)}. Raise the budget, or protect less."
        )
    source = Source(pieces, _places(documents, pieces), question, budget, stay, scorer)
    return pieces, method.select(source)


def _places(documents: Sequence[str], pieces: Pieces) -> tuple[range, ...]:
    """The pieces of each document, the separator before it included."""
    found, at = [], 0
    for document in documents:
        stop = at + len(document)
        found.append(pieces.within(max(at - len(BETWEEN), 0), stop))
        at = stop + len(BETWEEN)
    return tuple(found)
