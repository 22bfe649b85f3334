"""A tuned decoder in a session, and the model's own afterwards."""

import pytest
import torch
from helpers.vision_tools import inputs

import laconic
from laconic import ArtifactError, ConflictError, compress
from laconic.artifact import Artifact, numbers
from laconic.fit.thinker import Thinker

FACTS = {"adsc": {"layers": [2], "factor": 4, "mode": "last", "grid": False}, "llavolta": {"layer": 3, "stride": 2}}


def tuned(model, name, path, facts=None):
    """An artifact of other weights, and the model that has them."""
    torch.manual_seed(0)
    thinker = Thinker(model)
    with torch.no_grad():
        for weight in thinker.parameters():
            weight.add_(torch.randn_like(weight) * 0.02)
    Artifact.of(name, "trained", model, facts or FACTS[name], numbers(thinker)).save(path)
    return thinker.lm.eval().requires_grad_(False)


@pytest.mark.parametrize("name", FACTS)
def test_a_session_runs_the_tuned_model_as_it_was_tuned(vlm, tmp_path, name):
    path, given = tmp_path / "net.safetensors", inputs([(3, 9)])
    other = tuned(vlm, name, path)
    before = [x.data_ptr() for x in vlm.parameters()]
    with compress(other, made(name)):
        want = other(**given).logits
    with compress(vlm, f"{name}:artifact={path}"):
        found = vlm(**given).logits
    torch.testing.assert_close(found, want, rtol=1e-3, atol=1e-3)
    assert before == [x.data_ptr() for x in vlm.parameters()]
    with compress(vlm, made(name)):
        assert (vlm(**given).logits - want).abs().max() > 1e-2


def made(name):
    return laconic.ADSC(layers=(2,), factor=4) if name == "adsc" else laconic.LLaVolta(**FACTS[name])


def test_one_s_own_settings_go_before_those_of_the_tuning(vlm, tmp_path):
    given = inputs([(3, 9)])
    for name, method in (("adsc", laconic.ADSC), ("llavolta", laconic.LLaVolta)):
        path = str(tmp_path / f"{name}.safetensors")
        tuned(vlm, name, path)
        shares = []
        for settings in ({}, {"keep": 0.5}, {"keep": 1.0}):
            with compress(vlm, method(artifact=path, **settings)) as session:
                vlm(**given)
            shares.append(round(session.stats.achieved, 2))
        assert shares[0] not in (0.5, 1.0) and shares[1] <= 0.5 and shares[2] == 1.0


def test_a_tuning_that_ends_without_compression_runs_without(vlm, tmp_path):
    path, given = str(tmp_path / "net.safetensors"), inputs([(3, 9)])
    other = tuned(vlm, "llavolta", path, {"layer": None, "stride": 1})
    with compress(vlm, laconic.LLaVolta(artifact=path)) as session:
        found = vlm(**given).logits
    torch.testing.assert_close(found, other(**given).logits, rtol=1e-3, atol=1e-3)
    assert session.stats.achieved == 1
    with compress(vlm, laconic.LLaVolta(artifact=path, keep=0.5)) as session:
        vlm(**given)
    assert session.stats.achieved <= 0.5


def test_bottlenecks_of_another_kind_are_refused(vlm, tmp_path):
    path = str(tmp_path / "net.safetensors")
    tuned(vlm, "adsc", path)
    with pytest.raises(ValueError, match="mode='first': this artifact was tuned with mode='last'"):
        compress(vlm, laconic.ADSC(artifact=path, mode="first"))


def test_two_tuned_decoders_and_another_model_are_refused(vlm, llama, tmp_path):
    path = {name: str(tmp_path / f"{name}.safetensors") for name in FACTS}
    for name in FACTS:
        tuned(vlm, name, path[name])
    with pytest.raises(ConflictError, match="each bring a tuned decoder"):
        compress(vlm, laconic.ADSC(artifact=path["adsc"]), laconic.LLaVolta(artifact=path["llavolta"]))
    with pytest.raises(ArtifactError, match="is for adsc, not for llavolta"):
        compress(vlm, laconic.LLaVolta(artifact=path["adsc"]))
    found = Artifact.load(path["adsc"])
    Artifact.of("adsc", "trained", llama, found.data, found.tensors).save(tmp_path / "other.safetensors")
    with pytest.raises(ArtifactError, match="made for other weights"):
        compress(vlm, laconic.ADSC(artifact=str(tmp_path / "other.safetensors")))
