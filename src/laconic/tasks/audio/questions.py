"""Questions about a clip and their answers, taken from its description: a digit, a number, a sound, or all digits.

Everything is made from a seed. Seeds from `EVALUATION_SEED` on are for evaluation only; the training script draws its
clips from smaller ones. Questions are asked only where the sound leaves no doubt: a sound that is named occurs once, and
a moment lies well inside a digit.
"""

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from laconic.tasks.audio.sounds import BEEPS, CHIRPS, DIGITS, SOUNDS, Clip, Event, draw
from laconic.tasks.dialogue import different
from laconic.tasks.task import EVALUATION_SEED

__all__ = ["EVALUATION_SEED", "QUESTIONS", "Question", "dialogue", "pose", "vocabulary"]

MARGIN = 0.05
"""A moment that is asked about lies this many seconds inside a digit."""
THINGS = {
    "beeps": tuple(BEEPS),
    "chirps": tuple(CHIRPS),
    "digits": DIGITS,
    **{f"{name}s": (name,) for name in SOUNDS},
}
"""What is counted, and the names of its sounds."""


@dataclass(frozen=True)
class Question:
    """A question about a clip: `kind` is one of `QUESTIONS`, `answer` the whole reference answer."""

    kind: str
    text: str
    answer: str


def _once(clip: Clip) -> list[Event]:
    """Events whose name occurs once."""
    names = Counter(event.name for event in clip.events)
    return [event for event in clip.events if names[event.name] == 1]


def _transcription(rng: random.Random, clip: Clip) -> Question | None:
    return Question("transcription", "Write down the digits.", clip.digits) if clip.digits else None


def _after(rng: random.Random, clip: Clip) -> Question | None:
    """The digit that is the next sound after one that is not a digit."""
    pairs = [(a, b) for a, b in zip(clip.events, clip.events[1:], strict=False) if b.spoken and not a.spoken]
    pairs = [(a, b) for a, b in pairs if a in _once(clip)]
    if not pairs:
        return None
    sound, digit = rng.choice(pairs)
    return Question("after", f"Which digit comes after the {sound.name}?", digit.name)


def _count(rng: random.Random, clip: Clip) -> Question | None:
    # Drawn among the numbers that are there, so that rare ones are asked about as often.
    counts = {thing: sum(event.name in names for event in clip.events) for thing, names in THINGS.items()}
    number = rng.choice(sorted(set(counts.values())))
    thing = rng.choice([thing for thing, n in counts.items() if n == number])
    return Question("count", f"How many {thing} are there?", str(number)) if number < 10 else None


def _order(rng: random.Random, clip: Clip) -> Question | None:
    events = _once(clip)
    if len(events) < 2 or all(event.spoken for event in events):
        return None
    a, b = rng.sample(events, 2)
    if a.spoken and b.spoken:
        b = rng.choice([event for event in events if not event.spoken])
    first = a if a.start < b.start else b
    return Question("order", f"Which comes first, the {a.name} or the {b.name}?", first.name)


def _moment(rng: random.Random, clip: Clip) -> Question | None:
    """The digit that is heard at a whole second."""
    there = [
        (second, event.name)
        for event in clip.events
        for second in range(1, int(clip.seconds) + 1)
        if event.spoken and event.start + MARGIN <= second <= event.end - MARGIN
    ]
    if not there:
        return None
    second, digit = rng.choice(there)
    return Question("moment", f"Which digit is heard at second {second}?", digit)


QUESTIONS: dict[str, Callable[[random.Random, Clip], Question | None]] = {
    "transcription": _transcription,
    "after": _after,
    "count": _count,
    "order": _order,
    "moment": _moment,
}
"""Question types; each function returns None where the clip has nothing to ask about."""


def pose(kind: str, seed: int) -> tuple[Clip, Question]:
    """The first clip drawn from `kind` and `seed` that a question of this kind can be asked about, and that question.

    Deterministic in (kind, seed).

    Raises:
        ValueError: an unknown kind.
    """
    if kind not in QUESTIONS:
        raise ValueError(f"kind={kind!r} is unknown; choose one of {', '.join(QUESTIONS)}")
    rng = random.Random(f"sound-{kind}-{seed}")
    while True:
        clip = draw(rng)
        question = QUESTIONS[kind](rng, clip)
        if question:
            return clip, question


def dialogue(rng: random.Random, clip: Clip, questions: int, weights: dict[str, float]) -> list[Question]:
    """At most ``questions`` different questions about ``clip``, kinds drawn by ``weights``."""
    return different(rng, QUESTIONS, clip, questions, weights)


def vocabulary() -> Sequence[str]:
    """Sentences that hold every word of the questions and answers; the tokenizer is trained on them."""
    rng = random.Random(0)
    clips = [draw(rng) for _ in range(400)]
    lines = [q for clip in clips for q in dialogue(rng, clip, 12, dict.fromkeys(QUESTIONS, 1.0))]
    return [line for q in lines for line in (q.text, q.answer)]
