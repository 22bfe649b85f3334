"""Training batches of ``testbed/audio``: clips, many questions about each, and what is heard in each audio token."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from laconic.tasks.audio.questions import QUESTIONS, Question, dialogue
from laconic.tasks.audio.sounds import RATE, Clip, draw, heard, render
from laconic.testbed.audio_model import AUDIO, BEGIN, END, SILENCE, TOKEN_SECONDS
from laconic.testbed.packing import Packed, Writer, pack

KIND_NAMES = list(QUESTIONS)
CHAINED = 0.2
"""Share of rows whose questions are turns of one chat."""
MOST_DIGITS = 12


@dataclass
class Batch:
    """B clips of at most T audio tokens: packed prompts, kinds [Q] of the questions, and the clips themselves.

    features [B, M, F] log-mel; inside [B] positions of the encoder that are no padding; lengths [B] audio tokens; words
    [B, T, 2] ids of the two words for what is heard in each token, the same twice in silence; places [B, T] which digit of
    the clip it is, from 1, or 0.
    """

    packed: Packed
    kinds: Tensor
    features: Tensor
    inside: Tensor
    lengths: Tensor
    words: Tensor
    places: Tensor


class Batches:
    """Draws batches with a processor of the testbed."""

    def __init__(self, processor: Any) -> None:
        self.writer, self.extractor = Writer(processor.tokenizer), processor.feature_extractor
        names = (AUDIO, BEGIN, END, SILENCE)
        self.audio, self.begin, self.end, self.silence = map(processor.tokenizer.convert_tokens_to_ids, names)

    def said(self, name: str) -> list[int]:
        """The two words of an event: those of its name, or "digit" and the digit."""
        return self.writer.encode(f" {name}" if len(name) > 1 else f" digit{name}")

    def draw(self, rng: random.Random, rows: int, questions: int, weights: dict[str, float], longest: float) -> Batch:
        """``rows`` fresh clips of at most ``longest`` seconds with up to ``questions`` each, kinds by ``weights``.

        Without kinds the clips come alone.
        """
        clips = [draw(rng, longest) for _ in range(rows)]
        asked = [dialogue(rng, clip, questions, weights) if weights else [] for clip in clips]
        return self.collate(clips, asked, [rng.random() < CHAINED for _ in clips])

    def collate(self, clips: Sequence[Clip], asked: Sequence[Sequence[Question]], chained: Sequence[bool]) -> Batch:
        """The batch of ``clips`` and the questions ``asked`` about each."""
        made = self.extractor(
            [render(clip) for clip in clips], sampling_rate=RATE, return_tensors="pt", return_attention_mask=True
        )
        inside = (made["attention_mask"].sum(-1) - 1) // 2 + 1
        lengths = inside // 2
        n = int(lengths.max())
        words = torch.full((len(clips), n, 2), self.silence)
        places = torch.zeros(len(clips), n, dtype=torch.long)
        for b, clip in enumerate(clips):
            order = {event.start: i for i, event in enumerate((e for e in clip.events if e.spoken), 1)}
            for t, event in enumerate(heard(clip, TOKEN_SECONDS, int(lengths[b]))):
                if event is not None:
                    words[b, t] = torch.tensor(self.said(event.name))
                    places[b, t] = min(order.get(event.start, 0), MOST_DIGITS)
        opening = [self.writer.bos, self.writer.user, self.begin]
        openings = [[*opening, *[self.audio] * int(k), self.end] for k in lengths]
        turns = [self.writer.turns(*row) for row in zip(asked, chained, strict=True)]
        kinds = torch.tensor([KIND_NAMES.index(q.kind) for questions in asked for q in questions], dtype=torch.long)
        return Batch(pack(openings, turns, chained), kinds, made["input_features"], inside, lengths, words, places)
