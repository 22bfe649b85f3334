"""Models of the zoo, built once; what a watch sees through `generate()`."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers.vision_zoo import CASES

from laconic.families.base import GENERIC
from laconic.families.vision import VisionWatch


@pytest.fixture(scope="session")
def vlm():
    """`vlm(name, implementation="sdpa", blind=False)`."""
    models: dict[Any, Any] = {}

    def get(name: str, implementation: str = "sdpa", blind: bool = False):
        key = (name, implementation, blind)
        if key not in models:
            models[key] = CASES[name].build(implementation, blind)
        return models[key]

    return get


@pytest.fixture
def seen():
    """`seen(model, inputs, layers=(), plain=False, **generate)`: the `Visual` that the decoder's first layer finds."""

    def run(model, inputs, layers=(), plain=False, **options):
        found = []
        with VisionWatch(model, layers) as watch, torch.no_grad():
            first = GENERIC.stack(model).layers[0]
            handle = first.register_forward_pre_hook(lambda module, args: found.append(watch.visual))
            try:
                if plain:
                    model(**inputs)
                else:
                    model.generate(**inputs, **({"max_new_tokens": 3, "do_sample": False} | options))
            finally:
                handle.remove()
        assert all(visual is None for visual in found[1:]), "decoding has no images"
        return found[0]

    return run
