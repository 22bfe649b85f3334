"""Training of LLMLingua-2's classifier: what another method keeps of texts, at several rates, is what it learns to keep."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel

from laconic.atomic import replacing
from laconic.fit.contract import TrainingFit
from laconic.fit.schedules import warmup_cosine
from laconic.method import create_method
from laconic.methods.prompt.llmlingua2.network import POSITIONS, TokenClassifier
from laconic.shortening.contract import PromptMethod
from laconic.shortening.pieces import owners, tokens
from laconic.shortening.scorer import Scorer
from laconic.shortening.scoring import ScoringMethod
from laconic.shortening.shorten import Shortened, shorten
from laconic.tasks.text import corpus
from laconic.tasks.text.facts import facts
from laconic.tasks.text.haystack import haystack, plant
from laconic.tasks.text.needles import numbers, singles
from laconic.tasks.text.words import NOUNS

LABELS = "labels.safetensors"


@dataclass(kw_only=True)
class LLMLingua2Fit(TrainingFit):
    """The encoder that says which words stay, taught by another method that shortens text.

    The texts are Python's documentation, with made-up facts between its lines in half of them. A label is the share of the
    rates at which the teacher keeps a token; the loss is the binary cross-entropy.

    Args:
        teacher: a method of the site prompt that needs no question, with its parameters; or "facts": what is kept is the
            made-up facts, whatever the rate.
        rates: shares at which the teacher shortens every text.
        texts: how many are labelled before the training begins. `tokens`: of each, 512 at most.
        width, layers, heads: of the encoder.
        batch_size: texts of a step.
        warmup: share of the steps before the peak of the cosine.
        checked: texts after training, unseen, on which the agreement with the teacher is measured.
    """

    teacher: str = "llmlingua"
    rates: tuple[float, ...] = (0.25, 0.5)
    texts: int = 300
    tokens: int = 256
    width: int = 64
    layers: int = 2
    heads: int = 4
    batch_size: int = 8
    steps: int = 1000
    lr: float = 1e-3
    clip: float | None = 1.0
    warmup: float = 0.05
    checked: int = 20

    method: ClassVar[str] = "llmlingua2"
    free: ClassVar[tuple[str, ...]] = (*TrainingFit.free, "checked")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tokens > POSITIONS:
            raise ValueError(f"llmlingua2: tokens={self.tokens}: the encoder sees at most {POSITIONS}.")
        if self.width % self.heads:
            raise ValueError(f"llmlingua2: width={self.width} must be a multiple of heads={self.heads}.")
        if too_large := [rate for rate in self.rates if rate >= 1]:
            raise ValueError(f"llmlingua2: rates={too_large[0]} keeps the whole text; give shares below 1.")
        self.taught = None if self.teacher == "facts" else _teacher(self.teacher)

    def build(self, model: PreTrainedModel, tokenizer: Any) -> TokenClassifier:
        self.model, self.scorer = model, Scorer(model, tokenizer)
        self.right: list[tuple[Tensor, Tensor]] = []
        self.embedding = int(model.config.get_text_config().hidden_size)
        self.network = TokenClassifier(self.embedding, self.width, self.layers, self.heads)
        return self.network

    def prepare(self, folder: Path | None, resume: bool) -> None:
        """Label the texts, or read the labels of an earlier start."""
        kept = None if folder is None else folder / LABELS
        if resume and kept is not None and kept.exists():
            found = load_file(kept)
            self.ids, self.labels = found["ids"], found["labels"]
            return
        rows = []
        for number in range(self.texts):
            rows.append(self.labelled(number))
            if (number + 1) % 50 == 0:
                self.note(f"labelled {number + 1} of {self.texts} texts")
        self.ids, self.labels = (torch.stack(column) for column in zip(*rows, strict=True))
        if kept is not None:
            with replacing(kept) as unfinished:
                save_file({"ids": self.ids, "labels": self.labels}, unfinished)

    def labelled(self, number: int) -> tuple[Tensor, Tensor]:
        """Token ids and labels of one text, [tokens] each; -1 where there is no token."""
        text, told = drawn(random.Random(f"{self.seed}-{number}"), self.scorer.tokenizer, self.tokens)
        pieces = tokens(text, self.scorer.tokenizer)
        each = [owner for owner, ids in enumerate(pieces.ids) for _ in ids][: self.tokens]
        if self.taught is None:
            stays = [[any(a < pieces.stops[i] <= b for a, b in told) for i in range(len(pieces))]]
        else:
            stays = []
            for rate in self.rates:
                method = replace(self.taught, keep=rate)
                if isinstance(method, ScoringMethod):
                    method = replace(method, scorer=self.scorer)
                stays.append(kept_at(shorten(text, method, tokenizer=self.scorer.tokenizer), pieces.stops))
        share = [sum(row[i] for row in stays) / len(stays) for i in each]
        flat = [token for ids in pieces.ids for token in ids][: self.tokens]
        ids, labels = torch.zeros(self.tokens, dtype=torch.long), torch.full((self.tokens,), -1.0)
        ids[: len(flat)], labels[: len(flat)] = torch.tensor(flat), torch.tensor(share)
        return ids, labels

    def rate(self, step: int) -> float:
        return warmup_cosine(step, self.steps, self.warmup)

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Token ids and labels [B, tokens], each text cut at a random place so that positions vary."""
        rng = random.Random(f"{self.seed}-{step}")
        rows = [rng.randrange(len(self.ids)) for _ in range(self.batch_size)]
        shift = rng.randrange(self.tokens // 4)
        device = self.model.device
        return self.ids[rows, shift:].to(device), self.labels[rows, shift:].to(device)

    def loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        said, wanted = self.said(*batch)
        self.right.append((said.detach(), wanted))
        return F.binary_cross_entropy_with_logits(said, wanted)

    def said(self, ids: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and labels of the tokens there are, [N] each."""
        with torch.no_grad():
            embeddings = self.model.get_input_embeddings()(ids).float()  # type: ignore[operator,misc]
        known = labels >= 0
        return self.network(embeddings)[known], labels[known]

    def progress(self) -> str:
        told, self.right = agreement(self.right), []
        return f"agrees with the teacher {told[0]:.1%} (always yes or no: {told[1]:.1%})"

    def facts(self) -> dict[str, Any]:
        sizes = {"embedding": self.embedding, "width": self.width, "layers": self.layers, "heads": self.heads}
        device = self.model.device
        with torch.no_grad():
            unseen = [self.labelled(self.texts + i) for i in range(self.checked)]
            told = agreement([self.said(ids[None].to(device), labels[None].to(device)) for ids, labels in unseen])
        self.note(
            f"on {self.checked} unseen texts it agrees with the teacher {told[0]:.1%} (always yes or no: {told[1]:.1%})"
        )
        return {**sizes, "agreement": [round(x, 4) for x in told]}


def drawn(rng: random.Random, tokenizer: Any, room: int) -> tuple[str, list[tuple[int, int]]]:
    """A text of at most `room` tokens from documentation that no evaluation uses, and the characters of the made-up facts in
    it; every second text has some."""

    def count(text: str) -> int:
        return len(tokenizer.encode(text, add_special_tokens=False))

    told: list[str] = []
    if rng.random() < 0.5:
        blocks = [*facts(rng).groups, *singles(rng, rng.sample(NOUNS, 4), numbers(rng, 4)).groups]
        told = [line for group in rng.sample(blocks, 4) for line in group]
    hay = haystack(rng, corpus.lines("prose"), room - sum(count("\n" + line) for line in told), count)
    lines = plant(rng, hay, told)
    spans, at = [], 0
    for line in lines:
        if line in told:
            spans.append((at, at + len(line)))
        at += len(line) + 1
    return "\n".join(lines), spans


def agreement(pairs: Sequence[tuple[Tensor, Tensor]]) -> tuple[float, float]:
    """How often a logit is on the label's side of one half, and how often the likelier of always staying and never staying
    would be."""
    right = torch.cat([(logits > 0) == (labels >= 0.5) for logits, labels in pairs]).float().mean()
    share = torch.cat([labels >= 0.5 for _, labels in pairs]).float().mean()
    return float(right), max(float(share), 1 - float(share))


def kept_at(done: Shortened, stops: tuple[int, ...]) -> list[bool]:
    """Whether the last character of each stretch of the text that ends at one of `stops` was kept."""
    at, ends = 0, []
    for piece in done.pieces:
        at += len(piece)
        ends.append(at)
    stay = set(done.kept)
    return [owner in stay for owner in owners(ends, stops)]


def _teacher(spec: str) -> PromptMethod:
    found = create_method(spec)
    if not isinstance(found, PromptMethod) or found.needs_question or found.name == LLMLingua2Fit.method:
        raise ValueError(
            f'llmlingua2: teacher={spec!r}: name another method that shortens text and needs no question, or "facts".'
        )
    return found
