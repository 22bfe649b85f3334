"""The scores of RULER (arXiv 2404.06654) and LongBench (arXiv 2308.14508), one answer at a time, between 0 and 1.

They give what the authors' scripts give, oddities included (each noted where it occurs), so that figures can be compared
with published ones; the benchmarks print 100 times the mean over samples. LongBench's scores for Chinese answers, which need
a word segmenter, are not here.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from difflib import SequenceMatcher

from laconic.errors import UnknownNameError, closest

_CONTROL = re.compile(r"[\x00-\x1f]")
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_NUMBER = re.compile(r"\d+")


# -- RULER -------------------------------------------------------------------------------------------------------------
def string_match_all(output: str, references: Sequence[str]) -> float:
    """Share of the references that occur in `output`, case ignored: all RULER tasks but question answering."""
    found = _found(output, references)
    return sum(found) / len(found)


def string_match_part(output: str, references: Sequence[str]) -> float:
    """1 if any reference occurs in `output`, case ignored: RULER's question answering, whose references are alternatives.

    lm-evaluation-harness (0.4.13) takes the share of the references found here, so an answer that names one of three
    spellings scores 1/3 there.
    """
    return float(max(_found(output, references)))


def _found(output: str, references: Sequence[str]) -> list[bool]:
    _check(references)
    text = _CONTROL.sub("\n", output.strip()).strip().lower()
    return [reference.lower() in text for reference in references]


# -- LongBench ---------------------------------------------------------------------------------------------------------
def qa_f1_score(output: str, references: Sequence[str]) -> float:
    """F1 of the bags of words, without case, punctuation and articles; of the closest reference."""
    return _best(_words_f1, output, references)


def _words_f1(output: str, reference: str) -> float:
    said, wanted = _plain_words(output), _plain_words(reference)
    same = (Counter(said) & Counter(wanted)).total()
    return 2 * same / (len(said) + len(wanted)) if same else 0.0


def _plain_words(text: str) -> list[str]:
    return _ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split()


def rouge_score(output: str, references: Sequence[str]) -> float:
    """ROUGE-L F1 over sentences, as the package ``rouge`` 1.0.1 defines it; of the closest reference.

    A text is cut into sentences at every full stop. Overlap is the number of different words in any longest common
    subsequence of a sentence of one and a sentence of the other; recall and precision divide it by the number of different
    words. Words are split at spaces, with case and punctuation. A blank sentence, as after a final full stop and a space, is
    one empty word.

    It differs in one point: the package's recursion fails on sentences of about a thousand words, and LongBench's script
    counts that as 0; here they are scored.
    """
    return _best(_rouge_l, output, references)


def _rouge_l(output: str, reference: str) -> float:
    said, wanted = _sentences(output), _sentences(reference)
    if not said or not wanted:
        return 0.0
    common = {word for ours in wanted for theirs in said for word in _common_words(ours, theirs)}
    precision = len(common) / len({word for sentence in said for word in sentence})
    recall = len(common) / len({word for sentence in wanted for word in sentence})
    return 2 * precision * recall / (precision + recall + 1e-8)


def _sentences(text: str) -> list[list[str]]:
    return [piece.split() or [""] for piece in text.split(".") if piece]


def _common_words(a: list[str], b: list[str]) -> list[str]:
    """A longest common subsequence; of several, the one found from the end by giving up words of `b` first."""
    longest = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            longest[i + 1][j + 1] = longest[i][j] + 1 if x == y else max(longest[i][j + 1], longest[i + 1][j])
    words, i, j = [], len(a), len(b)
    while i and j:
        if a[i - 1] == b[j - 1]:
            words.append(a[i - 1])
            i, j = i - 1, j - 1
        elif longest[i - 1][j] > longest[i][j - 1]:
            i -= 1
        else:
            j -= 1
    return words


def classification_score(output: str, references: Sequence[str], classes: Sequence[str]) -> float:
    """1 / (number of classes that `output` names) if the reference is among them.

    Classes whose name is a part of the reference's are not counted. The published loop removes them from the list that
    it iterates over, and so skips the class after each of them; so does this one.
    """

    def score(output: str, reference: str) -> float:
        named = [name for name in classes if name in output]
        at = 0
        while at < len(named):
            if named[at] != reference and named[at] in reference:
                del named[at]
            at += 1
        return 1 / len(named) if reference in named else 0.0

    return _best(score, output, references)


def retrieval_score(output: str, references: Sequence[str], mark: str = "Paragraph ") -> float:
    """Share of the numbers in `output` that are the reference's paragraph number.

    Args:
        references: each holds `mark` and a number, such as ``"Paragraph 15"``.
        mark: ``"段落"`` for the Chinese task.

    Raises:
        ValueError: a reference without one.
    """

    def score(output: str, reference: str) -> float:
        wanted = re.search(re.escape(mark) + r"(\d+)", reference)
        if wanted is None:
            raise ValueError(f"reference {reference!r} holds no {mark!r} with a number.")
        return _share_of_numbers(output, wanted[1])

    return _best(score, output, references)


def count_score(output: str, references: Sequence[str]) -> float:
    """Share of the numbers in `output` that are the reference, digit by digit."""
    return _best(_share_of_numbers, output, references)


def _share_of_numbers(output: str, wanted: str) -> float:
    numbers = _NUMBER.findall(output)
    return numbers.count(wanted) / len(numbers) if numbers else 0.0


def code_sim_score(output: str, references: Sequence[str]) -> float:
    """Similarity in hundredths of the first line of `output` that is neither comment nor fence; of the closest reference.

    It is what `fuzzywuzzy.fuzz.ratio` gives without python-Levenshtein, as LongBench installs it: difflib's ratio, rounded;
    1 for equal texts, 0 when one is empty.
    """
    lines = output.lstrip("\n").split("\n")
    code = next((line for line in lines if not any(mark in line for mark in ("`", "#", "//"))), "")
    return _best(_similarity, code, references)


def _similarity(a: str, b: str) -> float:
    if a == b:
        return 1.0
    return round(100 * SequenceMatcher(None, a, b).ratio()) / 100 if a and b else 0.0


def _best(score: Callable[[str, str], float], output: str, references: Sequence[str]) -> float:
    _check(references)
    return max(score(output, reference) for reference in references)


def _check(references: Sequence[str]) -> None:
    if isinstance(references, str) or not references:
        raise ValueError(f"references={references!r} must be a list of at least one text.")


_BY_SCORE: list[tuple[Callable[..., float], str]] = [
    (qa_f1_score, "narrativeqa qasper multifieldqa_en hotpotqa 2wikimqa musique triviaqa"),
    (rouge_score, "gov_report qmsum multi_news samsum"),
    (classification_score, "trec lsht"),
    (retrieval_score, "passage_retrieval_en passage_retrieval_zh"),
    (code_sim_score, "lcc repobench-p"),
    (count_score, "passage_count"),
]
LONGBENCH = {task: metric for metric, tasks in _BY_SCORE for task in tasks.split()}
"""The score of every LongBench task that needs no Chinese word segmenter."""
FIRST_LINE = frozenset({"trec", "triviaqa", "samsum", "lsht"})
"""Tasks of which only the first line of the answer is scored: their prompts hold examples, and models write further ones."""


def longbench(task: str, output: str, references: Sequence[str], classes: Sequence[str] = ()) -> float:
    """The score of one answer to LongBench's `task`; `classes` are needed for ``trec`` and ``lsht``.

    Raises:
        UnknownNameError: no such task here.
        ValueError: no references, or no classes where they are needed.
    """
    if task not in LONGBENCH:
        raise UnknownNameError(f"no LongBench score for {task!r}: {closest(task, LONGBENCH)}")
    if task in FIRST_LINE:
        output = output.lstrip("\n").split("\n")[0]
    metric = LONGBENCH[task]
    if metric is classification_score:
        if not classes:
            raise ValueError(f"{task} is a classification: give its classes.")
        return metric(output, references, classes)
    return metric(output, references, "段落") if task == "passage_retrieval_zh" else metric(output, references)
