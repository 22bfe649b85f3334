"""Settings from text."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from laconic.errors import UnknownNameError
from laconic.fit import Fit
from laconic.fit.settings import defaults, parse, shown


@dataclass(kw_only=True)
class Many(Fit):
    depths: int = 5
    lengths: tuple[int, ...] = (256, 512)
    rates: tuple[float, ...] = (0.1,)
    lr: float = 1e-3
    first: int | None = None
    clip: float | None = 1.0
    exact: bool = False
    text: str = ""
    folder: Path = Path("here")

    method = "many"


def test_each_is_read_as_its_field_is_typed():
    given = {
        "seed": "3",
        "depths": "7",
        "lengths": "128, 160",
        "rates": "0.5,1",
        "lr": "5e-4",
        "first": "2",
        "clip": "none",
        "exact": "true",
        "text": "12",
        "folder": "/there",
    }
    made = parse(Many, given)
    assert made == Many(
        seed=3,
        depths=7,
        lengths=(128, 160),
        rates=(0.5, 1.0),
        lr=5e-4,
        first=2,
        clip=None,
        exact=True,
        text="12",
        folder=Path("/there"),
    )
    assert parse(Many, {"first": "none", "lengths": "64"}) == Many(lengths=(64,)) and parse(Many, {}) == Many()
    assert parse(Many, {"exact": "no"}).exact is False


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"depths": "many"}, "many: depths='many' must be a whole number"),
        ({"depths": "none"}, "must be a whole number"),
        ({"depths": "1.5"}, "must be a whole number"),
        ({"lengths": "1,a"}, "lengths='1,a' must be a whole number"),
        ({"lr": "x"}, "must be a number"),
        ({"exact": "perhaps"}, "must be true or false"),
        ({"lr": "0"}, "lr=0.0 must be positive"),
        ({"seed": "1000000"}, "reserved for evaluation"),
    ],
)
def test_what_does_not_fit_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        parse(Many, given)


def test_an_unknown_one_lists_them_all():
    with pytest.raises(UnknownNameError, match=r"many has no setting 'dephts': did you mean depths\?") as caught:
        parse(Many, {"dephts": "1"})
    for name, value in defaults(Many).items():
        assert f"{name}={shown(value)}" in str(caught.value)
    assert "lengths=256,512" in str(caught.value)
