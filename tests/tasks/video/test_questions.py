"""Every answer is checked against the frames' scenes by rules written again here, and answers are balanced."""

import random
import re
from collections import Counter

import pytest

from laconic.tasks.video.clips import FRAMES, Clip
from laconic.tasks.video.questions import EVALUATION_SEED, QUESTIONS, dialogue, pose, shows, vocabulary


def frames_with(clip: Clip, name: str) -> list[int]:
    """Frames in whose scene something of that name is."""
    scenes = [clip.scene(frame) for frame in range(clip.frames)]
    if name == "sign":
        return [i for i, scene in enumerate(scenes) if scene.signs]
    return [i for i, scene in enumerate(scenes) if any(shape.name == name for shape in scene.shapes)]


def reference(clip: Clip, text: str) -> str:
    """The answer worked out from the sentence and the scenes."""
    if text == "What does the sign say?":
        (sign,) = {scene.signs[0].text for scene in map(clip.scene, range(clip.frames)) if scene.signs}
        return sign
    if found := re.fullmatch(r"Which comes first, the (.+) or the (.+)\?", text):
        return min(found.groups(), key=lambda name: frames_with(clip, name)[0])
    if found := re.fullmatch(r"When is the (.+) there\?", text):
        there = frames_with(clip, found[1])
        middle = (there[0] + there[-1] + 1) / 2 / clip.frames
        assert there == list(range(there[0], there[-1] + 1)) and min(abs(middle - 1 / 3), abs(middle - 2 / 3)) > 0.07
        return "beginning" if middle < 1 / 3 else "middle" if middle < 2 / 3 else "end"
    if found := re.fullmatch(r"How many times does the (.+) come\?", text):
        there = frames_with(clip, found[1])
        return str(sum(frame - 1 not in there for frame in there))
    found = re.fullmatch(r"Which way does the (.+) move\?", text)
    places = [
        (shape.x, shape.y) for frame in range(clip.frames) for shape in clip.scene(frame).shapes if shape.name == found[1]
    ]
    across, down = places[-1][0] - places[0][0], places[-1][1] - places[0][1]
    assert max(abs(across), abs(down)) > 8
    if abs(across) > abs(down):
        return "right" if across > 0 else "left"
    return "down" if down > 0 else "up"


@pytest.mark.parametrize("frames", FRAMES)
@pytest.mark.parametrize("kind", QUESTIONS)
def test_answers_follow_from_the_frames(kind, frames):
    for seed in range(40):
        clip, question = pose(kind, seed, frames)
        assert question.kind == kind and question.answer == reference(clip, question.text)


def test_a_question_follows_from_its_seed_and_length():
    assert pose("times", 3, 8) == pose("times", 3, 8) and pose("times", 3, 8) != pose("times", 4, 8)
    assert pose("when", EVALUATION_SEED, 8)[0] != pose("first", EVALUATION_SEED, 8)[0]


def test_no_answer_is_much_more_frequent_than_others():
    for kind, most in (("when", 0.45), ("times", 0.75), ("direction", 0.32), ("first", 0.1), ("reading", 0.05)):
        answers = Counter(pose(kind, seed, 16)[1].answer for seed in range(300))
        assert max(answers.values()) <= most * 300, (kind, answers)


def test_the_one_that_comes_first_is_named_first_or_second_alike():
    first = [q.text.index(q.answer) < q.text.index(" or ") for q in (pose("first", seed, 16)[1] for seed in range(300))]
    assert 0.4 < sum(first) / len(first) < 0.6


def test_bad_kinds_and_lengths_are_refused():
    with pytest.raises(ValueError, match=r"kind='colour' is unknown; choose one of reading"):
        pose("colour", 1, 8)
    with pytest.raises(ValueError, match="frames=3 are too few"):
        pose("when", 1, 3)


def test_a_dialogue_asks_different_questions_whose_words_are_known():
    clip, _ = pose("first", 5, 16)
    asked = dialogue(random.Random(1), clip, 6, dict.fromkeys(QUESTIONS, 1.0))
    assert len({q.text for q in asked}) == len(asked) <= 6
    known = {word for line in vocabulary() for word in re.findall(r"\w", line) + line.split()}
    assert all(set(q.text.split()) <= known for q in asked)


def test_frames_that_show_what_a_question_names():
    for kind in QUESTIONS:
        clip, question = pose(kind, 3, 16)
        for frame, found in enumerate(shows(clip, question)):
            scene = clip.scene(frame)
            named = any(shape.name in question.text for shape in scene.shapes)
            assert found is (named or ("sign" in question.text and bool(scene.signs)))
