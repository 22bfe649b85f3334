"""The registry, and what a calibration refuses."""

from dataclasses import dataclass

import pytest
import torch

import laconic
from laconic.errors import RecipeError, UnknownNameError
from laconic.fit.calibrations import CALIBRATIONS, Calibration, calibrate, calibration
from laconic.fit.layer_probe import LayerProbe, greedy


def test_these_methods_are_calibrated():
    assert set(CALIBRATIONS) == {"compresskv", "fastkv", "fitprune", "razorattention", "vtw"}
    for name, cls in CALIBRATIONS.items():
        assert cls.name == name and laconic.list_methods(name)[0].training == ("none" if name == "fastkv" else "calibration")


def test_options_are_checked(llama):
    with pytest.raises(UnknownNameError, match="no calibration"):
        calibrate("snapkv", llama, None)
    with pytest.raises(UnknownNameError, match="'depths'"):
        calibrate("razorattention", llama, None, depths=3)
    with pytest.raises(ValueError, match="reserved for evaluation"):
        calibrate("compresskv", llama, None, seed=1_000_000)
    for options in ({"depths": 0}, {"lengths": (128, 0)}, {"seed": -1}):
        with pytest.raises(ValueError, match="or more"):
            calibrate("compresskv", llama, None, **options)


def test_one_of_ones_own(llama, monkeypatch):
    monkeypatch.setattr("laconic.fit.calibrations.CALIBRATIONS", {})

    @calibration("snapkv")
    @dataclass(kw_only=True)
    class Own(Calibration):
        extra: int = 2

        def run(self, model, tokenizer, say):
            say("measured")
            return {"value": self.extra * 2} if self.extra > 1 else {}

    said = []
    made = calibrate("snapkv", llama, None, said.append, extra=4)
    assert made.data == {"value": 8} and made.made == {"by": "laconic calibrate snapkv", "seed": 0, "extra": 4}
    assert said == ["measured"] and made.method == "snapkv"
    with pytest.raises(RecipeError, match="gave nothing"):
        calibrate("snapkv", llama, None, extra=1)


class Letters:
    """A tokenizer of single letters; token 5 is a line break."""

    eos_token_id = None

    def decode(self, ids):
        return "".join("\n" if i == 5 else "x" for i in ids)


def test_greedy_equals_generate_and_watching_changes_nothing(llama, prompt):
    ids = prompt(1, 20)
    want = llama.generate(ids, max_new_tokens=7, do_sample=False, pad_token_id=0)[0, 20:].tolist()
    seen = []
    watch = LayerProbe(
        prefill=lambda s: seen.append(("prefill", s.new)), token=lambda s: seen.append(("token", s.keys.shape[2]))
    )
    got = list(greedy(llama, Letters(), ids[0].tolist(), watch, 7))
    assert got == want[: want.index(5)] if 5 in want else got == want
    assert seen[:4] == [("prefill", 19)] * 4 and seen[4:12] == [("token", 20)] * 4 + [("token", 21)] * 4


def test_greedy_stops_at_a_line_break_but_not_at_leading_ones(llama, prompt, monkeypatch):
    said = iter([5, 5, 9, 9, 5, 9])
    monkeypatch.setattr(torch.Tensor, "argmax", lambda self, *a, **k: torch.tensor(next(said)))
    logits = list(greedy_tokens(llama, prompt))
    assert logits == [5, 5, 9, 9]


def greedy_tokens(llama, prompt):
    return greedy(llama, Letters(), prompt(1, 6)[0].tolist(), LayerProbe(), 10)
