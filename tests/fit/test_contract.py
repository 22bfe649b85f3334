"""What settings may be, and what a fit must define."""

from dataclasses import dataclass

import pytest
from helpers.fit_toy import ToyFit

from laconic.fit import Fit, TrainingFit
from laconic.fit.find import fits


@dataclass(kw_only=True)
class Own(Fit):
    lengths: tuple[int, ...] = (1, 2)
    share: float = 0.5
    first: int | None = None
    whole: bool = False

    method = "own"


def test_numbers_are_positive_and_seeds_are_not_those_of_evaluation():
    Own(seed=999_999, first=3)
    for bad in ({"share": 0.0}, {"lengths": (128, 0)}, {"first": -1}, {"share": -0.5}):
        with pytest.raises(ValueError, match=rf"own: {next(iter(bad))}=.* must be positive"):
            Own(**bad)
    with pytest.raises(ValueError, match="seed=-1 must be at least 0"):
        Own(seed=-1)
    with pytest.raises(ValueError, match="seed=1000000 is reserved for evaluation; use 0 to 999999"):
        Own(seed=1_000_000)


def test_what_is_missing_is_named():
    with pytest.raises(NotImplementedError, match=r"Own must define facts\(\)"):
        Own().facts()
    fit = TrainingFit()
    assert fit.rate(3) == 1.0 and fit.progress() == "" and fit.facts() == {}
    for call in (lambda: fit.build(None, None), lambda: fit.batch(0), lambda: fit.loss(None)):
        with pytest.raises(NotImplementedError, match="TrainingFit must define"):
            call()


def test_every_fit_of_the_catalogue_has_defaults_that_make_sense():
    for name, cls in {**fits(), "knorm": ToyFit}.items():
        made = cls()
        assert cls.method == name and made.seed == 0 and (cls.__doc__ or "").strip()
        if isinstance(made, TrainingFit):
            assert {"steps", "log_every", "save_every"} <= set(cls.free) <= made.settings().keys()
        assert set(cls.may_be_zero) <= made.settings().keys()
