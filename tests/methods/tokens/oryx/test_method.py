"""Oryx in a session. "line n" is what the card must show."""

import pytest
import torch
from helpers.vision_tools import inputs
from helpers.visual_fit import check_artifacts

from laconic import BudgetError, UnsupportedModelError, compress
from laconic.artifact import Artifact, numbers
from laconic.methods.tokens.oryx.method import Oryx
from laconic.methods.tokens.oryx.network import Dynamic


def dynamic(model, path, noise=0.02, sides=(1, 2, 4)):
    """An artifact of random weights, and its network."""
    torch.manual_seed(0)
    net = Dynamic(model, 16).eval().requires_grad_(False)
    for weight in net.parameters():
        weight.add_(torch.randn_like(weight) * noise)
    data = {"regions": list(sides), "inner": 16}
    Artifact.of("oryx", "trained", model, data, numbers(net)).save(path)
    return net


@pytest.fixture(scope="module")
def made(vlm, tmp_path_factory):
    path = tmp_path_factory.mktemp("oryx") / "net.safetensors"
    return path, dynamic(vlm, path)


def test_an_untrained_compressor_at_its_finest_changes_nothing(vlm, tmp_path):
    dynamic(vlm, tmp_path / "net.safetensors", noise=0.0)
    given = inputs([(3, 9), (8, 4)])
    plain = vlm(**given).logits[:, -1]
    with compress(vlm, Oryx(region=1, artifact=str(tmp_path / "net.safetensors"))):
        torch.testing.assert_close(vlm(**given).logits[:, -1], plain, rtol=1e-4, atol=1e-4)


def test_regions_stand_where_the_image_was(vlm, made):
    path, net = made
    given, seen = inputs([(3, 9)], images=2), []
    with compress(vlm, Oryx(region=4, artifact=str(path))):
        hook = vlm.model.language_model.layers[0].register_forward_pre_hook(lambda module, args: seen.append(args[0]))
        vlm(**given)
    hook.remove()
    patches = vlm.model.vision_tower(given["pixel_values"], output_hidden_states=True).hidden_states[-2][:, 1:]
    want = net(patches.unflatten(1, (12, 12)), 4).flatten(0, 1)
    assert seen[0].shape[1] == 12 + 18
    torch.testing.assert_close(seen[0][0, 3:21], want, rtol=1e-3, atol=1e-3)


def test_a_budget_takes_the_smallest_region_that_fits(vlm, made):
    """line 6: 1x, 4x and 16x"""
    given, path = inputs([(3, 9)]), str(made[0])
    for budget, tokens in (({}, 9), ({"keep": 0.5}, 36), ({"tokens": 35}, 9), ({"region": 3}, 16), ({"region": 1}, 144)):
        with compress(vlm, Oryx(artifact=path, **budget)) as session:
            vlm(**given)
        assert session.stats.visual[0] == tokens
    with compress(vlm, Oryx(artifact=path, tokens=8)), pytest.raises(BudgetError, match="makes 9 of it; raise it"):
        vlm(**given)


def test_what_makes_no_sense_is_refused(vlm, made):
    with pytest.raises(BudgetError, match="give one of them"):
        Oryx(region=2, keep=0.5)
    with pytest.raises(ValueError, match="region=0"):
        Oryx(region=0)
    with compress(vlm, Oryx(region=5, artifact=str(made[0]))), pytest.raises(UnsupportedModelError, match="5 a side do not"):
        vlm(**inputs([(3, 9)]))
    with compress(vlm, Oryx(artifact=str(made[0]), protect=(3, 10))), pytest.raises(BudgetError, match="protected"):
        vlm(**inputs([(3, 9)]))


def test_artifacts_are_checked(vlm, llama, made, tmp_path):
    path = tmp_path / "net.safetensors"
    path.write_bytes(made[0].read_bytes())
    check_artifacts(lambda artifact: Oryx(artifact=artifact), path, vlm, llama)
