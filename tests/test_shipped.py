"""Shipped models are found by name."""

import pytest

from laconic.shipped import MODELS, model_path


def test_every_model_is_a_checkpoint():
    for name in MODELS:
        assert (model_path(name) / "config.json").is_file()


def test_another_name_is_refused_with_the_closest():
    with pytest.raises(ValueError, match="did you mean testbed/vlm"):
        model_path("testbed/vlmm")
