"""Training of LLMLingua-2's classifier: what another method keeps of texts, at several rates, is what it learns to keep."""

from __future__ import annotations

import random
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

    method: ClassVar[str] = "llmlingua2"

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
        self.right: list[tuple[float, float]] = []
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
        ids, labels = batch
        with torch.no_grad():
            embeddings = self.model.get_input_embeddings()(ids).float()  # type: ignore[operator,misc]
        logits, known = self.network(embeddings), labels >= 0
        said, wanted = logits[known], labels[known]
        self.right.append((float(((said > 0) == (wanted >= 0.5)).float().mean()), float((wanted >= 0.5).float().mean())))
        return F.binary_cross_entropy_with_logits(said, wanted)

    def progress(self) -> str:
        right, shares = (sum(column) / len(self.right) for column in zip(*self.right, strict=True))
        self.right = []
        return f"agrees with the teacher {100 * right:.1f} % (always yes or no: {100 * max(shares, 1 - shares):.1f} %)"

    def facts(self) -> dict[str, Any]:
        return {"embedding": self.embedding, "width": self.width, "layers": self.layers, "heads": self.heads}


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
