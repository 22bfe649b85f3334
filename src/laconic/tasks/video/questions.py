"""Questions about a clip and their answers, taken from its description: a word, two words, a number or a way each.

Everything is made from a seed. Seeds from `EVALUATION_SEED` on are for evaluation only; the training script draws its
clips from smaller ones. Questions are asked only where the frames leave no doubt: what is named comes once, a moment is
well inside its third of the clip, and what moves is seen at two places.
"""

import random
from collections import Counter
from collections.abc import Callable, Sequence

from laconic.tasks.dialogue import different
from laconic.tasks.scenes.questions import Question
from laconic.tasks.scenes.scenes import COLOURS, KINDS
from laconic.tasks.task import EVALUATION_SEED
from laconic.tasks.video.clips import FRAMES, STRETCHES, WAYS, Clip, draw

__all__ = ["EVALUATION_SEED", "QUESTIONS", "Question", "dialogue", "pose", "shows", "vocabulary"]


def _reading(rng: random.Random, clip: Clip) -> Question | None:
    return Question("reading", "What does the sign say?", clip.sign.text)


def _first(rng: random.Random, clip: Clip) -> Question | None:
    visits = clip.once()
    if len(visits) < 2:
        return None
    a, b = rng.sample(visits, 2)
    return Question("first", f"Which comes first, the {a.name} or the {b.name}?", (a if a.first < b.first else b).name)


def _when(rng: random.Random, clip: Clip) -> Question | None:
    moments = [(visit.name, clip.stretch(visit.first, visit.stop)) for visit in clip.once()]
    known = [(name, stretch) for name, stretch in [*moments, ("sign", clip.stretch(clip.shown, clip.gone))] if stretch]
    if not known:
        return None
    # Drawn among the stretches that are there, so that each is the answer as often as it can be.
    stretch = rng.choice(sorted({stretch for _, stretch in known}))
    name = rng.choice([name for name, own in known if own == stretch])
    return Question("when", f"When is the {name} there?", stretch)


def _times(rng: random.Random, clip: Clip) -> Question | None:
    counts = Counter(visit.name for visit in clip.visits)
    number = rng.choice(sorted(set(counts.values())))
    name = rng.choice(sorted(name for name, count in counts.items() if count == number))
    return Question("times", f"How many times does the {name} come?", str(number))


def _direction(rng: random.Random, clip: Clip) -> Question | None:
    moving = [visit for visit in clip.once() if visit.moves]
    if not moving:
        return None
    visit = rng.choice(moving)
    return Question("direction", f"Which way does the {visit.name} move?", str(visit.way))


QUESTIONS: dict[str, Callable[[random.Random, Clip], Question | None]] = {
    "reading": _reading,
    "first": _first,
    "when": _when,
    "times": _times,
    "direction": _direction,
}
"""Question types; each function returns None where the clip has nothing to ask about."""


def pose(kind: str, seed: int, frames: int) -> tuple[Clip, Question]:
    """The first clip of ``frames`` frames drawn from `kind` and `seed` that a question of this kind can be asked about, and
    that question. Deterministic in (kind, seed, frames).

    Raises:
        ValueError: an unknown kind, or fewer than 4 frames.
    """
    if kind not in QUESTIONS:
        raise ValueError(f"kind={kind!r} is unknown; choose one of {', '.join(QUESTIONS)}")
    if frames < FRAMES[0]:
        raise ValueError(f"frames={frames} are too few for a clip in which something happens; give at least {FRAMES[0]}")
    rng = random.Random(f"clip-{kind}-{seed}-{frames}")
    while True:
        clip = draw(rng, frames)
        question = QUESTIONS[kind](rng, clip)
        if question:
            return clip, question


def dialogue(rng: random.Random, clip: Clip, questions: int, weights: dict[str, float]) -> list[Question]:
    """At most ``questions`` different questions about ``clip``, kinds drawn by ``weights``."""
    return different(rng, QUESTIONS, clip, questions, weights)


def shows(clip: Clip, question: Question) -> list[bool]:
    """For every frame of ``clip`` whether something that ``question`` names is to be seen in it."""
    spans = [(visit.first, visit.stop) for visit in clip.visits if visit.name in question.text]
    spans += [(clip.shown, clip.gone)] if "sign" in question.text else []
    return [any(first <= frame < stop for first, stop in spans) for frame in range(clip.frames)]


def vocabulary() -> Sequence[str]:
    """Sentences that hold every word of the questions and answers; the tokenizer is trained on them."""
    names = [f"{colour} {kind}" for colour in COLOURS for kind in KINDS]
    lines = [line for name in names for line in (f"Which comes first, the {name} or the {name}?", name)]
    lines += [f"Which way does the {name} move?" for name in names]
    lines += [f"How many times does the {name} come?" for name in names]
    lines += [f"When is the {name} there?" for name in names]
    return [*lines, "What does the sign say?", *STRETCHES, *WAYS, *map(str, range(10))]
