"""Names that moved still work, and say where they went."""

import importlib

import pytest

import laconic.media.prompt
import laconic.testbed.scenes

MOVED = [
    (laconic.media.prompt, "laconic.prompts.media", "build"),
    (laconic.testbed.scenes, "laconic.tasks.scenes.scenes", "SIZE"),
]


@pytest.mark.parametrize(("module", "new", "name"), MOVED)
def test_what_moved_is_the_same_object(module, new, name):
    with pytest.warns(
        DeprecationWarning, match=f"{module.__name__} is deprecated and will be removed in laconic 0.3; use {new}"
    ):
        found = getattr(module, name)
    assert found is getattr(importlib.import_module(new), name)


@pytest.mark.parametrize(("module", "new", "name"), MOVED)
def test_what_never_was_is_an_attribute_error(module, new, name):
    with pytest.warns(DeprecationWarning), pytest.raises(AttributeError, match="nothing"):
        module.nothing  # noqa: B018
    with pytest.raises(AttributeError, match="__path__"):
        module.__path__  # noqa: B018
