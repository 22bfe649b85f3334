"""Scores of a language model: with what was kept in its cache as in a plain pass."""

import pytest
from helpers.text_tools import TEXT, scorer, slow_surprise

import laconic
from laconic.errors import SessionError
from laconic.measure.cost import Shape
from laconic.shortening import scorer as module
from laconic.shortening.scorer import Prefix, Scorer

IDS = scorer().tokenizer.encode(TEXT, add_special_tokens=False)


def test_surprise_is_a_plain_pass(monkeypatch):
    monkeypatch.setattr(module, "BATCH", 100)  # so that the text is read in pieces
    assert scorer().surprise(IDS[:180]) == pytest.approx(slow_surprise(IDS[:180]), abs=1e-4)
    assert scorer().surprise(IDS[:70], IDS[70:90]) == pytest.approx(slow_surprise(IDS[:70], IDS[70:90]), abs=1e-4)
    assert scorer().surprise([]) == []


def test_a_window_is_scored_as_after_the_kept_tokens_alone():
    prefix, kept = Prefix(scorer()), []
    for start in range(0, 240, 40):
        window = IDS[start : start + 40]
        assert prefix.score(window) == pytest.approx(slow_surprise(window, kept), abs=1e-4)
        stay = window[::3] if start != 80 else []  # a window may lose all its tokens
        prefix.keep(stay)
        kept += stay


def test_an_opening_is_read_first():
    prefix = Prefix(scorer(), IDS[:9])
    assert prefix.score(IDS[20:30]) == pytest.approx(slow_surprise(IDS[20:30], IDS[:9]), abs=1e-4)
    assert prefix.score(IDS[20:30]) == pytest.approx(slow_surprise(IDS[20:30], IDS[:9]), abs=1e-4)  # nothing was kept


def test_beyond_the_positions_the_beginning_goes_out_of_sight(monkeypatch):
    monkeypatch.setattr(Scorer, "limit", 64)
    prefix = Prefix(scorer())
    for start in (0, 20, 40):
        prefix.score(IDS[start : start + 20])
        prefix.keep(IDS[start : start + 20])
    window = IDS[60:80]
    assert prefix.score(window) == pytest.approx(slow_surprise(window, IDS[28:60]), abs=1e-4)
    with pytest.raises(ValueError, match="33 tokens is over half of the 64 positions of tiny"):
        prefix.score(IDS[:33])


def test_texts_side_by_side_are_scored_alone(monkeypatch):
    monkeypatch.setattr(module, "BATCH", 64)
    texts = [IDS[:5], [], IDS[5:40], IDS[40:41], IDS[41:60], IDS[60:160]]
    found = scorer().side_by_side(texts, 2)
    for ids, scores in zip(texts, found, strict=True):
        assert scores == pytest.approx(slow_surprise(ids, [2]), abs=1e-4)


def test_work_is_counted_by_the_formula():
    one = Scorer.of(scorer())
    shape = Shape.of(one.model, one.model.model)
    assert one.flops == 0
    one.surprise(IDS[:50])
    assert one.flops == shape.prefill_flops([50] * shape.layers, 50)
    prefix, other = Prefix(one), Scorer.of(scorer())
    prefix.score(IDS[:50])
    assert other.flops == 0  # each has its own


def test_models_are_loaded_once_and_a_session_is_refused():
    assert Scorer.of("testbed/lm").model is Scorer.of("testbed/lm").model
    assert str(Scorer.of("testbed/lm")) == "testbed/lm"
    with laconic.compress(scorer().model), pytest.raises(SessionError, match="close that one first"):
        Scorer.of(scorer())
