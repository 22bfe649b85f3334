"""TextHawk2 in a session. "line n" is what the card must show."""

import pytest
import torch
from helpers.streaming_tools import embeddings
from helpers.vision_tools import inputs
from helpers.visual_fit import check_artifacts

from laconic import BudgetError, UnsupportedModelError, compress
from laconic.artifact import Artifact, numbers
from laconic.methods.tokens.texthawk2.method import TextHawk2
from laconic.methods.tokens.texthawk2.network import TwoSteps


def two_steps(model, path, pools=(1, 2), noise=0.02, side=12, tile=12):
    """An artifact of random weights, and its network."""
    torch.manual_seed(0)
    net = TwoSteps(model, (3, 0), (1, 4), 1).eval().requires_grad_(False)
    for weight in net.parameters():
        weight.add_(torch.randn_like(weight) * noise)
    data = {"pools": list(pools), "group": [1, 4], "routing": [3, 0], "stages": [1, 2, 3, 4], "expansion": 1}
    Artifact.of("texthawk2", "trained", model, data | {"tile": tile, "side": side}, numbers(net)).save(path)
    return net


@pytest.fixture(scope="module")
def made(vlm, tmp_path_factory):
    path = tmp_path_factory.mktemp("texthawk2") / "net.safetensors"
    return str(path), two_steps(vlm, path)


def test_tokens_stand_where_the_image_was(vlm, made):
    """line 1: sixteen times fewer"""
    path, net = made
    given, seen = inputs([(3, 9)], images=2), []
    with compress(vlm, TextHawk2(artifact=path)) as session:
        hook = vlm.model.language_model.layers[0].register_forward_pre_hook(lambda module, args: seen.append(args[0]))
        vlm(**given)
    hook.remove()
    want = net(stages_of(vlm, given), 2, 12).flatten(0, 1)
    assert seen[0].shape[1] == 12 + 18 and session.stats.visual[0] == 18
    torch.testing.assert_close(seen[0][0, 3:21], want, rtol=1e-3, atol=1e-3)


def stages_of(model, given):
    states = model.model.vision_tower(given["pixel_values"], output_hidden_states=True).hidden_states
    return [states[layer][:, 1:].unflatten(1, (12, 12)) for layer in (1, 2, 3, 4)]


def test_every_view_gets_its_own_stride(vlm, made):
    """71 tokens for two images are 36 for the first, which a stride of 1 makes, and 35 for the second."""
    path, net = made
    given = inputs([(3, 9)], images=2)
    read, _ = embeddings(vlm, TextHawk2(artifact=path, tokens=71), given)
    first, second = ([x[i : i + 1] for x in stages_of(vlm, given)] for i in range(2))
    want = torch.cat([net(first, 1, 12)[0], net(second, 2, 12)[0]])
    torch.testing.assert_close(read[3:48], want, rtol=1e-3, atol=1e-3)


def test_strides_divide_tiles_and_tiles_both_sides(vlm, made, tmp_path):
    method, path = TextHawk2(artifact=made[0]), str(tmp_path / "net.safetensors")
    compress(vlm, method)
    for shape in ((12, 8), (8, 12)):
        with pytest.raises(UnsupportedModelError, match=f"{shape[0]} x {shape[1]} visual tokens, which tiles of 12 x 12"):
            method._strides(None, 0, [torch.zeros(shape)])
    two_steps(vlm, path, pools=(2, 4), side=24, tile=6)
    method = TextHawk2(artifact=path)
    compress(vlm, method)
    assert method._strides(None, 0, [torch.zeros(24, 24)]) == [2]  # 4 divides the view, and not its tiles


def test_a_budget_takes_the_smallest_stride_that_fits(vlm, made):
    given, path = inputs([(3, 9)]), made[0]
    for budget, tokens in (({}, 9), ({"keep": 0.5}, 36), ({"tokens": 35}, 9), ({"pool": 1}, 36), ({"pool": 3}, 4)):
        with compress(vlm, TextHawk2(artifact=path, **budget)) as session:
            vlm(**given)
        assert session.stats.visual[0] == tokens
    with compress(vlm, TextHawk2(artifact=path, tokens=8)), pytest.raises(BudgetError, match="makes 9 of it; raise it"):
        vlm(**given)


def test_what_makes_no_sense_is_refused(vlm, made, tmp_path):
    given, path = inputs([(3, 9)]), str(tmp_path / "net.safetensors")
    with pytest.raises(BudgetError, match="give one of them"):
        TextHawk2(pool=1, keep=0.5)
    for wrong in (0, 1.5):
        with pytest.raises(ValueError, match=f"pool={wrong} must be a whole number of at least 1"):
            TextHawk2(pool=wrong)
    with compress(vlm, TextHawk2(pool=5, artifact=made[0])), pytest.raises(UnsupportedModelError, match="for 5 x 5 of them"):
        vlm(**given)
    with compress(vlm, TextHawk2(artifact=made[0], protect=(3, 10))), pytest.raises(BudgetError, match="protected"):
        vlm(**given)
    two_steps(vlm, path, side=6)
    with compress(vlm, TextHawk2(artifact=path)), pytest.raises(UnsupportedModelError, match=r"up to 6 .* has 12 x 12"):
        vlm(**given)
    two_steps(vlm, path, tile=8)
    with compress(vlm, TextHawk2(artifact=path)), pytest.raises(UnsupportedModelError, match="tiles of 8 x 8"):
        vlm(**given)


def test_a_model_that_returns_no_stages_is_refused(vlm, made, monkeypatch):
    tower = vlm.model.vision_tower
    hook = tower.register_forward_hook(lambda module, args, output: setattr(output, "hidden_states", None))
    monkeypatch.setattr(type(vlm.model), "get_image_features", whole(vlm))
    try:
        with compress(vlm, TextHawk2(artifact=made[0])), pytest.raises(UnsupportedModelError, match="of single layers"):
            vlm(**inputs([(3, 9)]))
    finally:
        hook.remove()


def whole(model):
    """Image features of the last layer, from an encoder that returns no others."""

    def features(self, pixel_values, **kwargs):
        found = self.vision_tower(pixel_values)
        found.pooler_output = list(self.multi_modal_projector(found.last_hidden_state[:, 1:]))
        return found

    return features


def test_artifacts_are_checked(vlm, llama, made, tmp_path):
    path = tmp_path / "net.safetensors"
    two_steps(vlm, path)
    check_artifacts(lambda artifact: TextHawk2(artifact=artifact), path, vlm, llama)
