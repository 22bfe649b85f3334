"""How a session reads figures: what a missed budget is, and that it is warned about once."""

import warnings
from types import SimpleNamespace

import pytest
import torch

from laconic import SnapKV
from laconic.measure.cost import Shape
from laconic.measure.figures import Figures
from laconic.measure.session_meter import SessionMeter
from laconic.step import Step

SHAPE = Shape((10, 10), 4, 2, 8, 0, 4)
STEP = Step(0, 100, torch.arange(100)[None], [100])


def cache(*stored, figures=None):
    """Layers that store so many entries in each of two heads; 0: without attention."""
    layers = [SimpleNamespace(parts=[1] * bool(n), lengths=torch.full((1, 2), n)) for n in stored]
    return SimpleNamespace(
        real=[100],
        entry_bytes=1,
        layer_ids=[0, 1],
        nbytes=sum(stored),
        allocated=sum(stored),
        compressed=lambda: layers,
        figures=figures or Figures(),
        late=SimpleNamespace(nbytes=0),
    )


def warned(meter, *stored):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        meter.check(STEP, cache(*stored))
    return [str(w.message) for w in caught]


@pytest.mark.parametrize("stores_less", [False, True])
def test_too_few_entries_are_a_miss_unless_other_methods_leave_fewer(stores_less):
    meter = SessionMeter(SHAPE, SnapKV(keep=0.5), stores_less)
    assert warned(meter, 50, 50) == []
    assert len(warned(meter, 50, 0)) == (0 if stores_less else 1)
    assert warned(SessionMeter(SHAPE, SnapKV(keep=0.5), stores_less), 80, 80) == [
        "snapkv was asked to keep 0.5000 of the tokens and kept 0.8000."
    ]


def test_once_per_session_whatever_the_cache():
    meter = SessionMeter(SHAPE, SnapKV(keep=0.5))
    assert len(warned(meter, 80, 80)) == 1
    assert warned(meter, 90, 90) == []


def test_without_a_budget_what_is_stored_is_the_share():
    meter = SessionMeter(SHAPE, None)
    stats = meter.stats(cache(40, 60))
    assert stats.asked == 1.0 and stats.achieved == 0.5 and stats.entries == [40.0, 60.0]
    assert warned(meter, 40, 60) == []
    assert meter.stats(None).kv_bytes == 0


def test_what_was_decoded_is_not_the_prompt():
    stats = SessionMeter(SHAPE, None).stats(cache(100, 100, figures=Figures(stretches=[(False, 70), (True, 30)])))
    assert (stats.tokens_in, stats.tokens_out) == (70, 30)
    assert stats.prefill_flops_full == SHAPE.prefill_flops([70, 70])
