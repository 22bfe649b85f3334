"""The lens as a whole, on a tiny model with the reasoner's tokenizer; what it refuses."""

import pytest
import torch
from helpers.thinking import MARK, TOKENIZER, tiny_thinker

import laconic
from laconic.errors import SessionError, UnsupportedModelError
from laconic.methods.lens.reasoning_meets_compression.method import ReasoningMeetsCompression

SMALL = {"samples": 2, "draws": 1}


def test_a_model_that_never_ends_its_thinking_has_lengths_and_no_answers():
    model = tiny_thinker()
    model.lm_head.register_forward_hook(lambda module, args, out: out.index_fill(-1, torch.tensor([MARK]), -1e9))
    found = ReasoningMeetsCompression(**SMALL).look(model, TOKENIZER, None)
    assert found["lengths"]["cut"] == found["lengths"]["answers"] == 2 and found["lengths"]["right"] == 0
    assert set(found) >= {"task", "lengths", "probe"} and "collapse" not in found


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"bits": 1}, "bits=1 must be between 2 and 8"),
        ({"bits": 2.5}, "bits=2.5 must be a whole number"),
        ({"share": 1.5}, "share=1.5 must be between 0 and 1"),
        ({"samples": 0}, "samples=0"),
        ({"levels": "0.5+0.3"}, "the lowest first"),
        ({"levels": "0+1"}, "0 <= sparsity < 1"),
        ({"levels": "much"}, "write sparsities"),
    ],
)
def test_settings_out_of_range(settings, said):
    with pytest.raises(ValueError, match=said):
        ReasoningMeetsCompression(**settings)


def test_it_looks_and_changes_nothing_and_needs_a_model_that_thinks(llama):
    with pytest.raises(SessionError, match="reasoning_meets_compression is a lens"):
        laconic.compress(llama, ReasoningMeetsCompression()).__enter__()
    with pytest.raises(UnsupportedModelError, match="ends a chain of thought"):
        ReasoningMeetsCompression().look(tiny_thinker(end_of_thinking=None), laconic.load("testbed/lm")[1], None)
    with pytest.raises(UnsupportedModelError, match="group=48 does not divide the 32 inputs of"):
        ReasoningMeetsCompression(group=48).look(tiny_thinker(), TOKENIZER, None)


@pytest.mark.slow
def test_7_the_best_two_percent_are_worth_more_than_any_that_are_drawn():
    """The control that the paper lacks, on the shipped model that thinks."""
    model, tokenizer = laconic.load("testbed/reasoner")
    lens = ReasoningMeetsCompression(samples=10, bits=2, draws=5)
    found = lens.look(model.float(), tokenizer, None)
    worth = found["protection"]
    assert worth["as it is"] < worth["top"] < min(worth["random"]) and max(worth["random"]) < 1.1 * worth["all rounded"]
    checking = found["probe"]["checking"]
    assert sum(share for share, _, _ in checking["modules"].values()) == pytest.approx(1)
    assert all(low <= high for _, low, high in checking["modules"].values())
    assert sum(checking["shift"].values()) == pytest.approx(0, abs=1e-6)


@pytest.mark.slow
def test_problems_and_facts_collapse_each_on_their_own():
    model, tokenizer = laconic.load("testbed/reasoner")
    lens = ReasoningMeetsCompression(samples=4, facts=3, share=0, prune="magnitude", levels="0+0.9", task="arithmetic_terse")
    found = lens.look(model, tokenizer, None)
    assert found["collapse"]["arithmetic_terse"]["at"] == 0.9
    assert found["collapse"]["facts"]["at"] is None and found["collapse"]["facts"]["levels"]["0.0"]["n"] == 3
    assert "protection" not in found
