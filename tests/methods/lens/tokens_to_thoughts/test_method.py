"""The lens on spaces whose structure is known, and on a tiny model."""

import numpy as np
import pytest
from helpers.word_tools import byte_llama, byte_tokenizer

import laconic
from laconic.errors import SessionError
from laconic.methods.lens.tokens_to_thoughts.method import TokensToThoughts, typicality
from laconic.methods.lens.tokens_to_thoughts.words import Words


def blobs(seed=0, kinds=8, items=12, size=16):
    """Items around their category's vector, the more typical the nearer."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(kinds, size))
    typical = np.tile(np.linspace(1, 0, items), kinds)
    away = rng.normal(size=(kinds * items, size))
    away /= np.linalg.norm(away, axis=1, keepdims=True)
    labels = np.repeat(np.arange(kinds), items)
    space = centres[labels] + (1 - typical)[:, None] * away * 1.5
    names = tuple(map(str, range(kinds)))
    return Words(tuple(map(str, range(kinds * items))), labels, names, typical), space, centres


def test_7_graded_blobs_have_their_categories_and_their_typicality():
    words, space, centres = blobs()
    found = TokensToThoughts().judged(space, words, centres, space)
    assert found["ami"] > 0.9 and found["typicality"]["rho"] > 0.9 and found["typicality"]["categories"] == 8
    assert found["cost"]["clusters"]["D"] <= found["cost"]["human"]["D"] + 1e-9 < found["cost"]["random"]["D"]
    assert found["cost"]["human"]["I"] == pytest.approx(3) and found["cost"]["other_space"] == found["cost"]["clusters"]


def test_7_categories_outlive_typicality_when_little_is_left():
    words, space, centres = blobs()
    turn = np.linalg.svd(space - space.mean(0), full_matrices=False)[2][:1].T
    lens = TokensToThoughts()
    whole, line = lens.judged(space, words, centres, space), lens.judged(space @ turn, words, centres @ turn, space)
    assert line["ami"] > 0.3 * whole["ami"] and line["typicality"]["rho"] < 0.3 * whole["typicality"]["rho"]


def test_6_scaling_leaves_everything_but_the_distortion():
    words, space, centres = blobs()
    one, ten = (TokensToThoughts(normalise="none").judged(a * space, words, a * centres, a * space) for a in (1, 10))
    assert one["ami"] == pytest.approx(ten["ami"]) and one["typicality"]["rho"] == pytest.approx(ten["typicality"]["rho"])
    assert ten["cost"]["human"]["D"] == pytest.approx(100 * one["cost"]["human"]["D"])
    assert ten["cost"]["human"]["I"] == one["cost"]["human"]["I"]


def test_the_clusters_of_another_space_are_a_fair_control():
    """They fit no better than human categories where the other space is noise."""
    words, space, centres = blobs()
    noise = np.random.default_rng(3).normal(size=space.shape)
    cost = TokensToThoughts().judged(space, words, centres, noise)["cost"]
    assert cost["other_space"]["D"] > 2 * cost["human"]["D"] > 2 * cost["clusters"]["D"] - 1e-9


def test_without_norms_nothing_is_said_of_typicality():
    words, space, centres = blobs()
    bare = Words(words.items, words.labels, words.names, None)
    assert "typicality" not in TokensToThoughts().judged(space, bare, centres, space)
    flat = Words(words.items, words.labels, words.names, np.ones(96))
    assert typicality(space, flat, centres) == {"rho": 0.0, "categories": 0}


def test_a_model_is_looked_at_layer_by_layer(tmp_path):
    (tmp_path / "w.csv").write_text(
        "item,category\n" + "".join(f"{w},{c}\n" for w, c in zip("abcdef", "xxxyyy", strict=True))
    )
    model = byte_llama()
    found = TokensToThoughts(words=str(tmp_path / "w.csv")).look(model, byte_tokenizer(), None)
    assert found["items"] == 6 and len(found["layers"]["ami"]) == model.config.num_hidden_layers + 1
    assert found["peak"]["ami"] == max(found["layers"]["ami"]) and "upper bound" in found["peak"]["chosen_by"]


def test_what_cannot_be_used_is_refused(llama):
    with pytest.raises(ValueError, match="give words=FILE, a CSV with the columns item, category"):
        TokensToThoughts().look(None, None, None)
    with pytest.raises(ValueError, match="normalise='x'"):
        TokensToThoughts(normalise="x")
    session = laconic.compress(llama, TokensToThoughts())
    with pytest.raises(SessionError, match="tokens_to_thoughts is a lens"):
        session.__enter__()
