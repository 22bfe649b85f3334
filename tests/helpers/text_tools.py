"""What tests of methods that shorten text share: a small random scorer, a text, slow scores from the definition."""

from functools import cache

import torch

from helpers.bench_tools import tiny
from laconic.shortening.pieces import tokens
from laconic.shortening.scorer import Scorer
from laconic.shortening.source import Source

TEXT = (
    "The harbour of Velden was built in 1873. Its lighthouse, which is 41 metres high, was painted red! "
    "Who paid for it? Nobody knows.\n\nIn 1912 a storm took the roof; the keeper (an old sailor) repaired it with his own "
    "hands. "
    "Ships from Grünau still bring salt, and the code for falcon is 4815263.\n"
) * 6


@cache
def scorer() -> Scorer:
    """Random weights, sharp enough that scores differ."""
    model, tokenizer = tiny()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(4)
    return Scorer(model, tokenizer, "tiny")


def slow_surprise(ids: list[int], before: list[int] = ()) -> list[float]:
    """-ln p of each token after all before it: one whole pass, without a cache; infinite for a first token of all."""
    whole = [*before, *ids]
    with torch.no_grad():
        likely = scorer().model(torch.tensor([whole])).logits[0].log_softmax(-1)
    return [float("inf") if i == 0 else -float(likely[i - 1, whole[i]]) for i in range(len(before), len(whole))]


def source_of(text: str = TEXT, keep: float = 0.3, question: str = "", forced: frozenset[int] = frozenset()) -> Source:
    """A text in tokens of the scorer, one document."""
    one = Scorer.of(scorer())
    pieces = tokens(text, one.tokenizer)
    return Source(pieces, (range(len(pieces)),), question, round(keep * sum(pieces.sizes)), forced, one)
