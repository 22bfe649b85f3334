"""LLMLingua-2: a bidirectional encoder says of every word whether it stays (arXiv 2403.12968)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from laconic import checks
from laconic.artifact import Artifact
from laconic.method import register
from laconic.methods.prompt.llmlingua2.network import POSITIONS, Classifier, TokenClassifier
from laconic.shortening.choose import fill
from laconic.shortening.pieces import Pieces, owners, tokens, words
from laconic.shortening.scorer import Scorer
from laconic.shortening.scoring import ScoringMethod, mean
from laconic.shortening.source import Source


@register(
    "llmlingua2",
    site="prompt",
    mechanism="deletion",
    source="arXiv 2403.12968",
    query_aware=False,
    training="trained",
    inferred="the encoder is a small one over the embeddings of the scorer (published: XLM-RoBERTa or mBERT, pre-trained), "
    "taught by another method (published: GPT-4); every chunk meets its budget exactly",
)
@dataclass(kw_only=True)
class LLMLingua2(ScoringMethod):
    """Keep the words that a small bidirectional encoder holds to be needed, whatever will be asked.

    A word's probability is the mean of its tokens'. The text goes through the encoder once, in chunks that end with a
    sentence where possible; no language model runs.

    Args:
        within: "chunk": every chunk keeps the same share, as published; "text": all words compete.
        documents: of several documents drop those with the lowest mean probability first, as many as leave
            ``(share + 1) / 2`` of them.
        artifact: what `laconic fit llmlingua2` wrote: a file, a shipped name, or a Hub id. None takes the one shipped for
            the scorer.
        scorer: the language model whose tokens and embeddings the encoder reads.
        force, digits, tags: what stays in any case, see `laconic.PromptMethod`.
    """

    within: Literal["chunk", "text"] = "chunk"
    documents: bool = False
    artifact: str | None = None

    default_keep: ClassVar[float | None] = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.one_of(self, "within", "chunk", "text")

    def opened(self) -> Any:
        scorer = Scorer.of(self.scorer)
        artifact = Artifact.find(self.name, scorer.model, self.artifact)
        sizes = {name: int(artifact.data[name]) for name in ("embedding", "width", "layers", "heads")}
        return Classifier(scorer, artifact.restore(TokenClassifier(**sizes)).to(scorer.model.device))

    def split(self, text: str, tokenizer: Any | None, scorer: Any) -> Pieces:
        return words(text, tokenizer or scorer.tokenizer)

    def select(self, source: Source) -> Sequence[int]:
        pieces, own = source.pieces, tokens(source.pieces.text, source.scorer.tokenizer)
        ids = owned(pieces, own)
        parts = [chunk for document in source.documents for chunk in chunks(pieces, [len(x) for x in ids], document)]
        chance: dict[int, float] = {}
        for part in parts:
            found = iter(source.scorer.probabilities([token for i in part for token in ids[i]]))
            for i in part:
                own_chances = [next(found) for _ in ids[i]]
                chance[i] = 1.0 if i in source.forced else mean(own_chances)
        if self.documents and len(source.documents) > 1:
            stay = likeliest(source.documents, chance, source.share)
            parts = [part for part in parts if any(part.start in document for document in stay)]
        return spent(source, parts if self.within == "chunk" else [[i for part in parts for i in part]], chance)


def owned(pieces: Pieces, own: Pieces) -> list[list[int]]:
    """Token ids of each piece, from another division `own` of the same text into tokens: a token belongs to the piece that
    its last character is in."""
    found: list[list[int]] = [[] for _ in range(len(pieces))]
    for ids, owner in zip(own.ids, owners(pieces.stops, own.stops), strict=True):
        found[owner] += ids
    return found


def chunks(pieces: Pieces, lengths: Sequence[int], document: range) -> list[range]:
    """The pieces of a document in runs of at most `POSITIONS` tokens. A run ends after the last piece with a full stop at
    its end or a new line before the next one, where there is one; a longer piece is a run of its own."""
    split, found = list(pieces), []
    start = document.start
    while start < document.stop:
        stop, total = start, 0
        while stop < document.stop and (stop == start or total + lengths[stop] <= POSITIONS):
            total += lengths[stop]
            stop += 1
        if stop < document.stop:
            ends = (i for i in range(stop, start, -1) if split[i - 1].endswith(".") or split[i][:1] == "\n")
            stop = next(ends, stop)
        found.append(range(start, stop))
        start = stop
    return found


def likeliest(documents: Sequence[range], chance: dict[int, float], share: float) -> list[range]:
    """The documents with the highest mean probability: ``(share + 1) / 2`` of them, rounded up, in their order."""
    means = [mean(chance[i] for i in document) for document in documents]
    count = -int(-len(documents) * (share + 1) / 2 // 1)
    best = sorted(range(len(documents)), key=lambda n: (-means[n], n))[:count]
    return [documents[n] for n in sorted(best)]


def spent(source: Source, parts: Sequence[Sequence[int]], chance: dict[int, float]) -> list[int]:
    """Of every part its likeliest pieces, as many as bring what is kept to what is due; and forced ones of the rest."""
    sizes = source.pieces.sizes
    kept: list[int] = []
    due = spent_so_far = 0.0
    total = source.pieces.size(i for part in parts for i in part)
    outside = source.forced.difference(i for part in parts for i in part)
    share = min(1.0, (source.budget - source.pieces.size(outside)) / total)
    for part in parts:
        due += share * source.pieces.size(part)
        ranked = sorted(part, key=lambda i: (-chance[i], i))
        forced = source.forced.intersection(part)
        chosen = fill([ranked], sizes, round(due) - spent_so_far, forced, least=0 if kept else 1)
        kept += chosen
        spent_so_far += sum(sizes[i] for i in chosen)
    return sorted({*kept, *outside})
