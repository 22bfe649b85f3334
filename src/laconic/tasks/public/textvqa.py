"""TextVQA (arXiv 1904.08920): a short answer about text in an image; VQA accuracy over the answers of ten people.

Layout: ``TextVQA_0.5.1_val.json`` with ``data``: a list of ``question``, ``image_id``, ``answers`` (ten) ...; images
``train_images/IMAGE_ID.jpg``. No OCR tokens are put into the prompt.

Both sides go through the answer processor of the VQA evaluation, oddities included (each noted where it occurs).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from laconic.tasks.files import FormatError
from laconic.tasks.public.base import WORD, Benchmark, existing, only, opener, percent, read_json
from laconic.tasks.task import Judged, Sample, about_image

PEOPLE = 10
_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_NUMBERS = {word: str(i) for i, word in enumerate(_WORDS)} | {"none": "0"}
_MARKS = ';/[]"{}()=+\\_-><@`,?!'
_PERIOD = re.compile(r"\.(?!\d)")
_COMMA_IN_NUMBER = re.compile(r"(?<=\d),+(?=\d)")
# Words that get their apostrophes back when one of them is missing. Not all of English: what the evaluation lists.
_SHORT = """
ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've
he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't not've
o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's
someone'd someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've there're
there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's what've
when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've wouldn't
wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've
"""


def _without_one(word: str) -> list[str]:
    return [word[:i] + word[i + 1 :] for i, letter in enumerate(word) if letter == "'"]


_CONTRACTIONS = {bare: word for word in _SHORT.split() for bare in _without_one(word)} | {"somebody'd": "somebodyd"}  # sic


def read(folder: Path) -> list[Sample]:
    """All questions in the order of the file."""
    path = only(folder, "TextVQA_0.5.1_val.json", "TextVQA*val.json")
    samples: list[Sample] = []
    for entry in read_json(path)["data"]:
        answers = tuple(entry["answers"])
        if len(answers) != PEOPLE:
            raise FormatError(f"{path}: question {entry.get('question_id')} has {len(answers)} answers, not {PEOPLE}.")
        image = opener(existing(folder / "train_images" / f"{entry['image_id']}.jpg"))
        samples.append(about_image("textvqa", len(samples), entry["question"] + WORD, answers, image))
    return samples


def processed(answer: str) -> str:
    """An answer in the form in which answers are compared."""
    text = answer.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()
    text = _without_marks(text.replace("\n", " ").replace("\t", " ").strip())
    words = [_NUMBERS.get(word, word) for word in text.lower().split()]
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in ("a", "an", "the"))


def _without_marks(text: str) -> str:
    """Punctuation is dropped next to a space and becomes a space elsewhere; full stops go unless a digit follows.

    The script means to keep full stops after digits, too, but its pattern does not; and it passes a flag where a count
    belongs, so that only the first 32 go.
    """
    out = text
    for mark in _MARKS:
        glued = mark + " " not in text and " " + mark not in text and not _COMMA_IN_NUMBER.search(text)
        out = out.replace(mark, " " if glued else "")
    return _PERIOD.sub("", out, count=32)


@lru_cache(maxsize=4096)
def accuracies(answers: tuple[str, ...]) -> dict[str, float]:
    """Processed answer -> accuracy: the mean over the ten ways to leave one person out of min(1, others who gave it / 3)."""
    said = [processed(answer) for answer in answers]
    found = {}
    for one in set(said):
        others = [said.count(one) - (left_out == one) for left_out in said]
        found[one] = sum(min(1.0, count / 3) for count in others) / len(others)
    return found


def score(output: str, sample: Sample) -> float:
    return accuracies(sample.answers).get(processed(output), 0.0)


def official(answers: Sequence[Judged]) -> dict[str, float]:
    """Mean VQA accuracy."""
    return {"accuracy": percent([answer.score for answer in answers])}


TEXTVQA = Benchmark("textvqa", read, score, official)
