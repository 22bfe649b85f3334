"""Errors that are meant derive from one class; unknown names are answered with close ones."""

import pytest

from laconic import errors


def test_all_derive_from_one():
    kinds = [x for x in vars(errors).values() if isinstance(x, type) and issubclass(x, Exception)]
    assert len(kinds) > 8 and all(issubclass(kind, errors.LaconicError) for kind in kinds)


def test_close_names_are_offered_and_else_all_of_them():
    assert errors.closest("snapvk", ["knorm", "snapkv"]) == "did you mean snapkv?"
    assert errors.closest("xyz", ["knorm", "adakv"]) == "known names: adakv, knorm."
    many = [f"name{i}" for i in range(errors.MANY + 1)]
    assert (
        errors.closest("xyz", many, "laconic methods")
        == "none of the 31 known names is close; `laconic methods` lists them."
    )
    assert errors.closest("xyz", many).startswith("known names: name0, ")  # nothing else would tell
    assert errors.closest("xyz", []) == "there are none; leave it out."


def test_the_old_name_warns():
    with pytest.warns(DeprecationWarning, match="use ArtifactError"):
        assert errors.RecipeError is errors.ArtifactError
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        errors.Nothing  # noqa: B018
