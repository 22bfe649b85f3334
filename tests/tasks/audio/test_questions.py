"""Every answer is checked against the clip by rules written again here, and answers are balanced."""

import random
import re
from collections import Counter

import pytest

from laconic.tasks.audio.questions import EVALUATION_SEED, MARGIN, QUESTIONS, dialogue, pose, vocabulary
from laconic.tasks.audio.sounds import Clip, Event, Voice


def reference(clip: Clip, text: str) -> str:
    """The answer worked out from the sentence."""
    names = [event.name for event in clip.events]

    def parts(pattern: str) -> tuple[str, ...] | None:
        match = re.fullmatch(pattern, text)
        return match.groups() if match else None

    if text == "Write down the digits.":
        return "".join(name for name in names if name in "0123456789")
    if found := parts(r"Which digit comes after the (.+)\?"):
        assert names.count(found[0]) == 1
        return names[names.index(found[0]) + 1]
    if found := parts(r"How many (.+)s are there\?"):
        if found[0] == "digit":
            return str(sum(name.isdigit() for name in names))
        return str(sum(name == found[0] or name.endswith(f" {found[0]}") for name in names))
    if found := parts(r"Which comes first, the (.+) or the (.+)\?"):
        assert all(names.count(name) == 1 for name in found)
        return min(found, key=names.index)
    (second,) = parts(r"Which digit is heard at second (\d)\?") or ("",)
    (event,) = [e for e in clip.events if e.start + MARGIN <= int(second) <= e.start + e.seconds - MARGIN]
    return event.name


@pytest.mark.parametrize("kind", QUESTIONS)
def test_answers_follow_from_the_clip(kind):
    for seed in range(150):
        clip, question = pose(kind, seed)
        assert question.kind == kind and question.answer == reference(clip, question.text)


def test_a_question_follows_from_its_seed():
    assert pose("count", 3) == pose("count", 3) and pose("count", 3) != pose("count", 4)
    assert pose("after", EVALUATION_SEED)[0] != pose("order", EVALUATION_SEED)[0]


def test_no_answer_is_much_more_frequent_than_others():
    for kind, most in (("after", 0.2), ("moment", 0.2), ("count", 0.5), ("order", 0.3), ("transcription", 0.1)):
        answers = Counter(pose(kind, seed)[1].answer for seed in range(300))
        assert max(answers.values()) <= most * 300, kind
    longest = max(len(pose("transcription", seed)[1].answer) for seed in range(300))
    assert longest >= 8


def test_the_named_sound_comes_first_or_second_alike():
    """Naming the first sound first would give the order away."""
    first = [
        text.index(answer) < text.index(" or ")
        for text, answer in ((q.text, f"the {q.answer}") for q in (pose("order", seed)[1] for seed in range(300)))
    ]
    assert 0.4 < sum(first) / len(first) < 0.6


def test_questions_without_an_answer_are_not_asked():
    voice = Voice(100, 1)
    beep = Event("high beep", 0.1, 0.2, 1, voice, 1)
    clip = Clip(1.0, (beep, Event("high beep", 0.5, 0.2, 1, voice, 1)), 0.01, 0)
    rng = random.Random(0)
    assert [QUESTIONS[kind](rng, clip) for kind in ("transcription", "after", "order", "moment")] == [None] * 4
    brief = Clip(2.0, (Event("3", 0.96, 0.2, 1, voice, 1),), 0.01, 0)  # second 1 is too near its start
    assert QUESTIONS["moment"](rng, brief) is None


def test_a_dialogue_asks_different_questions():
    clip, _ = pose("order", 5)
    asked = dialogue(random.Random(1), clip, 6, {"count": 1.0, "order": 1.0})
    assert len({q.text for q in asked}) == len(asked) <= 6 and {q.kind for q in asked} == {"count", "order"}


def test_the_vocabulary_has_every_word():
    words = {word for line in vocabulary() for word in re.findall(r"[a-zA-Z]+|\d", line)}
    asked = [pose(kind, seed)[1] for kind in QUESTIONS for seed in range(100)]
    assert {word for q in asked for word in re.findall(r"[a-zA-Z]+|\d", f"{q.text} {q.answer}")} <= words


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="kind='melody' is unknown; choose one of transcription"):
        pose("melody", 0)
