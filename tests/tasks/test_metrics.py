"""Golden values: what the authors' own functions gave for these inputs, and slow versions from the definitions.

The functions that were run: ``scripts/eval/synthetic/constants.py`` of NVIDIA/RULER at c3f5e3b; ``LongBench/metrics.py`` of
THUDM/LongBench at 2e00731 with ``rouge`` 1.0.1 and ``fuzzywuzzy`` 0.18.0 without python-Levenshtein, the maximum over
references as in its ``eval.py``.
"""

import itertools
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from laconic.errors import UnknownNameError
from laconic.tasks import metrics

DENVER = ["Denver", "Denver, Colorado", "the Mile High City"]


# -- RULER -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("output", "references", "every", "part"),
    [
        ("Denver", DENVER, 1 / 3, 1.0),
        ("denver, COLORADO is it", DENVER, 2 / 3, 1.0),
        ("Boulder", DENVER, 0.0, 0.0),
        ("4815263 and 7971690", ["4815263", "7971690"], 1.0, 1.0),
        ("14815263", ["4815263"], 1.0, 1.0),  # a part of a word is enough
        ("new\tyork", ["new\nyork"], 1.0, 1.0),  # control characters of the output become line breaks
        ("", ["x"], 0.0, 0.0),
    ],
)
def test_ruler(output, references, every, part):
    assert metrics.string_match_all(output, references) == pytest.approx(every)
    assert metrics.string_match_part(output, references) == part


def test_question_answering_takes_any_reference_where_the_harness_takes_their_share():
    """lm-eval 0.4.13 computes max over samples of (references found / references), and is given one sample at a time."""
    found = [1.0 if reference.lower() in "denver" else 0.0 for reference in DENVER]
    harness = max([sum(found) / len(found)]) / 1
    published = sum([max(found)]) / 1
    assert harness == pytest.approx(0.333, abs=1e-3)
    assert metrics.string_match_part("Denver", DENVER) == published == 1.0


# -- LongBench ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("output", "references", "wanted"),
    [
        ("The Eiffel Tower, in Paris.", ["eiffel tower"], 2 / 3),
        ("in paris paris", ["Paris, Paris!", "London"], 0.8),
        ("a the an", ["the"], 0.0),
        ("It's 1,000", ["its 1000 m"], 0.8),
        ("no", ["yes"], 0.0),
    ],
)
def test_qa_f1(output, references, wanted):
    assert metrics.qa_f1_score(output, references) == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("output", "references", "wanted"),
    [
        ("the cat sat on the mat", ["the cat lay on the mat"], 0.799999995),
        ("police killed the gunman. the end. ", ["the gunman police killed. nothing"], 0.5454545404958678),
        ("a b c. d e", ["d e. a c b", "x"], 0.799999995),
        ("a b. ", ["c d. "], 0.3333333283333334),  # the blank after the full stop is a common word
        ("The cat", ["the cat."], 0.4999999950000001),
        ("...", ["a"], 0.0),
        ("", ["a"], 0.0),
    ],
)
def test_rouge(output, references, wanted):
    assert metrics.rouge_score(output, references) == pytest.approx(wanted, abs=1e-12)


@given(st.lists(st.sampled_from("abc"), max_size=7), st.lists(st.sampled_from("abc"), max_size=7))
def test_rouge_finds_a_longest_common_subsequence(a, b):
    def subsequences(words):
        return {tuple(pick) for n in range(len(words) + 1) for pick in itertools.combinations(words, n)}

    longest = max(map(len, subsequences(a) & subsequences(b)))
    got = metrics._common_words(a, b)[::-1]
    assert len(got) == longest
    assert tuple(got) in subsequences(a) & subsequences(b)


def test_rouge_scores_sentences_of_a_thousand_words():
    text = " ".join(f"w{i}" for i in range(1100))
    assert metrics.rouge_score(text, [text]) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("output", "references", "wanted"),
    [
        ("\n```python\n# sum\nreturn a + b\n", ["return a+b"], 0.91),
        ("x = 1", ["x = 1"], 1.0),
        ("// only\n# comments", ["x = 1"], 0.0),
        ("    self.value = value", ["self.values = value", "pass"], 0.88),
        ("abcd" * 60, ["abcd" * 60 + "e"], 1.0),
        ("\n\n  \nx", ["x"], 0.0),  # a line of blanks is the first line that is no comment
    ],
)
def test_code_similarity(output, references, wanted):
    assert metrics.code_sim_score(output, references) == wanted


@pytest.mark.parametrize(
    ("output", "references", "wanted"),
    [("12 paragraphs, 12 of 15", ["12"], 2 / 3), ("12.0", ["12"], 0.5), ("none", ["3"], 0.0), ("012", ["12"], 0.0)],
)
def test_count(output, references, wanted):
    assert metrics.count_score(output, references) == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("output", "references", "wanted"),
    [
        ("Paragraph 15", ["Paragraph 15"], 1.0),
        ("It is 15, not 3 or 4.", ["Paragraph 15"], 1 / 3),
        ("none", ["Paragraph 15"], 0.0),
        ("5", ["Paragraph 15", "Paragraph 5"], 1.0),
    ],
)
def test_retrieval(output, references, wanted):
    assert metrics.retrieval_score(output, references) == pytest.approx(wanted)


def test_retrieval_wants_a_paragraph_in_the_reference():
    with pytest.raises(ValueError, match=r"'15' holds no 'Paragraph '"):
        metrics.retrieval_score("15", ["15"])


CLASSES = ["Description", "Description of a person", "Individual", "Other number", "number", "person", "Other"]


@pytest.mark.parametrize(
    ("output", "reference", "wanted"),
    [
        ("Description of a person", "Description of a person", 1.0),
        ("Other number", "Other number", 0.5),  # "number" is taken out, and "Other" behind it is stepped over
        ("Individual or Other", "Individual", 0.5),
        ("Description", "Description of a person", 0.0),
        ("Other number or Individual", "Other number", 1 / 3),
        ("nothing", "Other", 0.0),
    ],
)
def test_classification(output, reference, wanted):
    assert metrics.classification_score(output, [reference], CLASSES) == pytest.approx(wanted)


@given(st.lists(st.sampled_from("ab"), max_size=12), st.lists(st.sampled_from("ab"), max_size=12))
def test_f1_is_the_harmonic_mean_of_precision_and_recall(said, wanted):
    """SQuAD's definition; the words are bare letters, of which `a` is an article and goes."""
    said, wanted = ["cc" if x == "b" else x for x in said], ["cc" if x == "b" else x for x in wanted]
    ours, theirs = [x for x in said if x != "a"], [x for x in wanted if x != "a"]
    rest, same = list(theirs), 0
    for word in ours:
        if word in rest:
            rest.remove(word)
            same += 1
    precision, recall = same / max(1, len(ours)), same / max(1, len(theirs))
    slow = 2 * precision * recall / (precision + recall) if same else 0.0
    assert metrics.qa_f1_score(" ".join(said), [" ".join(wanted)]) == pytest.approx(slow)


# -- by task -----------------------------------------------------------------------------------------------------------
def test_tasks_with_examples_in_the_prompt_are_scored_by_their_first_line():
    assert metrics.longbench("triviaqa", "\nParis\nLondon Rome", ["paris"]) == 1.0
    assert metrics.longbench("hotpotqa", "\nParis\nLondon Rome", ["paris"]) == 0.5
    assert metrics.longbench("trec", "Individual\nOther", ["Individual"], CLASSES) == 1.0


def test_every_task_has_its_score():
    wanted = {
        "narrativeqa": 1.0, "gov_report": pytest.approx(1.0), "lcc": 1.0, "passage_count": 0.0, "repobench-p": 1.0,
    }  # fmt: skip
    assert {task: metrics.longbench(task, "seven", ["seven"]) for task in wanted} == wanted
    assert metrics.longbench("passage_retrieval_zh", "段落7", ["段落7"]) == 1.0
    assert metrics.longbench("passage_retrieval_en", "7, 8", ["Paragraph 7"]) == 0.5


@pytest.mark.parametrize("references", ["Paris", [], ()])
def test_references_are_a_list(references):
    for metric in (metrics.string_match_all, metrics.string_match_part, metrics.qa_f1_score, metrics.code_sim_score):
        with pytest.raises(ValueError, match="must be a list"):
            metric("Paris", references)


def test_what_is_not_here_is_said():
    with pytest.raises(UnknownNameError, match="dureader"):
        metrics.longbench("dureader", "x", ["x"])
    with pytest.raises(ValueError, match="give its classes"):
        metrics.longbench("trec", "x", ["x"])


def test_punctuation_is_asciis():
    assert metrics.qa_f1_score(string.punctuation + "x", ["x"]) == 1.0
    assert metrics.qa_f1_score("«x»", ["x"]) == 0.0
