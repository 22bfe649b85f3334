"""The registry of trainers."""

import pytest

from laconic import UnknownNameError
from laconic.fit.trainers import find, trainers


def test_names_and_settings():
    assert "lococo" in trainers()
    settings = find("lococo").configure({"memory": "64", "lr": "1e-3", "init": "normal"})
    assert (settings.memory, settings.lr, settings.init) == (64, 1e-3, "normal")


def test_what_is_unknown_names_the_closest():
    with pytest.raises(UnknownNameError, match="did you mean lococo"):
        find("lococco")
    with pytest.raises(UnknownNameError, match="did you mean memory"):
        find("lococo").configure({"memry": "1"})


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="memory='many' must be of type int"):
        find("lococo").configure({"memory": "many"})
