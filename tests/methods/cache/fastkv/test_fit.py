"""The layer at which FastKV is to select."""

import pytest
import torch

import laconic
from laconic import FastKV
from laconic.artifact import Artifact
from laconic.fit import Trainer
from laconic.fit.needles import trials
from laconic.methods.cache.fastkv.fit import FastKVFit, flattens, last_hidden


def test_the_first_layer_of_the_flat_part():
    assert flattens([1.0, 0.5, 0.1, 0.05, 0.0], 0.1) == 2
    assert flattens([1.0, 0.5, 0.1, 0.05, 0.0], 0.01) == 4
    assert flattens([0.3, 0.3], 0.1) == 0


def test_distances_are_of_the_last_token_s_state():
    model, tokenizer = laconic.load("testbed/lm")
    made = Trainer(FastKVFit(lengths=(256,), depths=2), model, tokenizer).run()
    prompts = [t.ids for t in trials(tokenizer, (256,), 2, 1, 0)]
    assert len(made.data["distances"]) == 3
    for layer, got in enumerate(made.data["distances"]):
        want = 0.0
        for ids in prompts:
            with torch.inference_mode():
                whole = model.model(torch.tensor([ids])).last_hidden_state[0, -1]
            short = last_hidden(model, ids, FastKV(keep=1.0, tsp_rate=0.2, tsp_layer=layer))
            want += float((short - whole).norm() / whole.norm()) / 2
        assert got == pytest.approx(want, rel=1e-3)
    assert made.data["tsp_layer"] == flattens(made.data["distances"], 0.1)


def test_an_artifact_sets_the_layer(llama, tmp_path, prompt):
    path = tmp_path / "r.safetensors"
    Artifact.of("fastkv", "measured", llama, {"tsp_layer": 2, "distances": [1, 1, 0]}).save(path)
    with laconic.compress(llama, laconic.create_method(f"fastkv:artifact={path},tsp_rate=0.5,keep=0.5")) as session:
        llama(prompt(1, 40))
    assert session.stats.stream == {0: 40, 1: 40, 2: 40, 3: 20}
    with pytest.raises(ValueError, match="not both"):
        FastKV(artifact=str(path), tsp_layer=1)
