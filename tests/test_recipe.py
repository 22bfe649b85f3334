"""Recipes: they name the weights they belong to, and say what is wrong."""

import json

import pytest
import torch

from laconic import recipe
from laconic.errors import RecipeError
from laconic.recipe import Recipe, find, fingerprint, load, shipped


def test_a_fingerprint_is_of_the_weights_not_of_their_type(make_llama):
    model = make_llama(layers=2).to(torch.bfloat16)
    known = fingerprint(model)
    assert fingerprint(model.to(torch.float32)) == known and len(known) == 32
    with torch.no_grad():
        model.lm_head.weight[0, 0] += 1
    assert fingerprint(model) != known
    assert fingerprint(make_llama(layers=2, seed=1)) != fingerprint(make_llama(layers=2, seed=0))


def test_saved_and_loaded(llama, tmp_path):
    made = Recipe.of("razorattention", llama, {"echo": [[0.5, 1e-05], [2.0, -3.0]]}, {"seed": 3, "by": "a, [1, 2], b"})
    made.save(tmp_path / "r.json")
    assert load(tmp_path / "r.json") == made
    assert "  [0.5, 1e-05]" in (tmp_path / "r.json").read_text()  # a row of numbers is a line
    assert find("razorattention", llama, str(tmp_path / "r.json")) == made
    assert set(made.versions) == {"laconic", "torch", "transformers"}


def test_a_recipe_of_another_method_or_model_is_refused(llama, make_llama, tmp_path):
    path = str(tmp_path / "r.json")
    Recipe.of("razorattention", llama, {}, {}).save(path)
    with pytest.raises(RecipeError, match="is for razorattention, not for compresskv"):
        find("compresskv", llama, path)
    with pytest.raises(RecipeError, match="made for other weights"):
        find("razorattention", make_llama(seed=5), path)
    with pytest.raises(RecipeError, match="laconic calibrate razorattention"):
        find("razorattention", llama, None)


def test_one_without_a_fingerprint_fits_whoever_asks_for_it_by_name(llama):
    name = "compresskv-llama-3.1-8b-instruct"
    assert find("compresskv", llama, name).fingerprint is None
    with pytest.raises(RecipeError, match="none is shipped"):
        find("compresskv", llama, None)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"method": "x", "strange": 1}', "{"])
def test_files_that_are_none(tmp_path, text):
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(RecipeError, match="no recipe that"):
        load(tmp_path / "r.json")
    with pytest.raises(RecipeError, match="does not exist"):
        load(tmp_path / "other.json")


def test_shipped_ones_are_whole():
    names = shipped()
    assert {"compresskv-llama-3.1-8b-instruct", "compresskv-mistral-7b-instruct-v0.3"} <= set(shipped("compresskv"))
    for name in names:
        made = load(recipe.SHIPPED / f"{name}.json")
        assert name.startswith(made.method) and made.data
        assert (made.fingerprint is None) == ("-testbed-" not in name)
        assert not {"/work", "/home", "/tmp"} & {w for w in json.dumps(made.made).split('"') if w.startswith("/")}
