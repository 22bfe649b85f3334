"""`longllmlingua` against its definition: documents by the question's likelihood after them, tokens by the contrast."""

from itertools import pairwise

import pytest
from helpers.text_tools import TEXT, scorer, slow_surprise, source_of

import laconic
from laconic.methods.prompt.longllmlingua import RESTRICTION, Contrast, arranged, deltas, shares, strangeness
from laconic.shortening.pieces import tokens
from laconic.shortening.source import Source

QUESTION = "What is the code for falcon?"


def ids(text):
    return scorer().tokenizer.encode(text, add_special_tokens=False)


def test_a_document_is_judged_by_the_question_after_it():
    scores = slow_surprise(ids(QUESTION + RESTRICTION), ids(TEXT[:200]))
    assert strangeness(scorer(), ids(TEXT[:200]), QUESTION) == pytest.approx(sum(scores) / len(scores), abs=1e-4)


def test_the_contrast_is_taken_after_what_was_kept():
    judge, kept = Contrast(scorer(), QUESTION), []
    for start in (0, 40, 80):
        window = ids(TEXT)[start : start + 40]
        plain, asked = slow_surprise(window, kept), slow_surprise(window, ids(QUESTION + "\n\n") + kept)
        found = judge.score(window)
        assert found[start == 0 :] == pytest.approx(
            [a - b for a, b in zip(plain, asked, strict=True)][start == 0 :], abs=2e-4
        )
        assert (found[0] == float("inf")) == (start == 0)
        judge.keep(window[::2])
        kept += window[::2]


def test_deltas_are_nothing_in_sum():
    assert deltas(3, 0.3) == pytest.approx([0.3, 0.0, -0.3]) and deltas(1, 0.3) == [0.0]
    assert all(sum(deltas(n, 0.4)) == pytest.approx(0) for n in range(1, 9))


@pytest.mark.parametrize("budget", [20, 90, 150, 290])
def test_shares_come_to_the_budget(budget):
    lengths = [100, 50, 120, 30]
    found = shares(lengths, budget, 0.3)
    assert found == sorted(found, reverse=True) and all(0 <= share <= 1 for share in found)
    assert sum(a * b for a, b in zip(lengths, found, strict=True)) == pytest.approx(budget, abs=1e-6)
    inner = [share for share in found if 0 < share < 1]
    assert all(a - b == pytest.approx(0.2) for a, b in pairwise(inner))
    assert shares(lengths, 400, 0.3) == [1.0] * 4  # all of it


def test_orders_by_hand():
    ranked, others = [3, 0, 4, 1, 2], [5]
    assert arranged(ranked, others, "original") == [0, 1, 2, 3, 4, 5]
    assert arranged(ranked, others, "sort") == [3, 0, 4, 1, 2, 5]
    assert arranged(ranked, others, "two_stage") == [3, 4, 2, 5, 1, 0]


def planted(keep=0.3):
    texts = [f"Room {i} is empty and cold. Nobody has been there for years.\n\n" for i in range(6)]
    texts[4] = "The code for falcon is 4815263, it is said here.\n\n"
    one = scorer()
    pieces = tokens("".join(texts), one.tokenizer)
    at, places = 0, []
    for text in texts:
        places.append(pieces.within(at, at + len(text)))
        at += len(text)
    return Source(pieces, tuple(places), QUESTION, round(keep * sum(pieces.sizes)), frozenset(), one)


@pytest.mark.parametrize("order", ["original", "sort", "two_stage"])
def test_the_most_relevant_document_keeps_most(order, monkeypatch):
    module = "laconic.methods.prompt.longllmlingua.strangeness"
    source = planted()
    gold = [token for i in source.documents[4] for token in source.pieces.ids[i]]
    monkeypatch.setattr(module, lambda scorer, document, question: 0.0 if document == gold else 1.0)
    method = laconic.LongLLMLingua(scorer=scorer(), order=order, extra=0, delta=0.4)
    found = method.select(source)
    kept = [source.pieces.size(i for i in found if i in part) / source.pieces.size(part) for part in source.documents]
    assert max(kept) == kept[4] and source.pieces.size(found) == pytest.approx(source.budget, rel=0.02)
    assert (found == sorted(found)) == (order == "original")
    if order == "sort":
        assert found[0] in source.documents[4]


def test_a_whole_text_is_divided_into_passages():
    source = source_of(TEXT, 0.2, QUESTION)
    found = laconic.LongLLMLingua(scorer=scorer(), chunk=40, extra=0).select(source)
    touched = [passage for passage in source.passages(40) if set(passage) & set(found)]
    assert 0 < len(touched) < len(source.passages(40))


def test_forced_pieces_of_dropped_documents_stay():
    source = planted(keep=0.2)
    forced = frozenset(part[2] for part in source.documents)
    for order in ("original", "sort", "two_stage"):
        method = laconic.LongLLMLingua(scorer=scorer(), order=order, extra=0)
        assert forced <= set(method.select(Source(**vars(source) | {"forced": forced})))


@pytest.mark.parametrize("given", [{"delta": 2}, {"order": "random"}, {"chunk": 0}, {"window": 0}, {"extra": -1}])
def test_bad_parameters(given):
    ((name, _),) = given.items()
    with pytest.raises(ValueError, match=f"longllmlingua: {name}="):
        laconic.LongLLMLingua(**given)


@pytest.mark.slow
def test_a_real_scorer_ranks_the_planted_document_first():
    source = planted()
    real = laconic.Scorer.of("smollm2")
    texts = ["".join(list(source.pieces)[i] for i in part) for part in source.documents]
    found = [strangeness(real, real.tokenizer.encode(text), QUESTION) for text in texts]
    assert min(found) == found[4]
