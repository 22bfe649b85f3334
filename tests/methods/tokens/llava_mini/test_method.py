"""LLaVA-Mini in a session. "line n" is what the card must show."""

import pytest
import torch
from helpers.vision_tools import inputs
from helpers.visual_fit import check_artifacts

from laconic import BudgetError, compress
from laconic.artifact import Artifact, numbers
from laconic.measure.cost import Shape
from laconic.methods.tokens.llava_mini import network
from laconic.methods.tokens.llava_mini.method import LlavaMini


def mini(model, path, sides=(1, 4), fusion=2, noise=0.02):
    """An artifact of random queries and of layers that are nearly the model's own, and its network."""
    torch.manual_seed(0)
    net = network.Mini(model, sides, fusion).eval().requires_grad_(False)
    for weight in net.parameters():
        weight.add_(torch.randn_like(weight) * noise)
    data = {"sides": list(sides), "fusion": fusion}
    Artifact.of("llava_mini", "trained", model, data, numbers(net)).save(path)
    return net


@pytest.fixture(scope="module")
def made(vlm, tmp_path_factory):
    path = tmp_path_factory.mktemp("mini") / "net.safetensors"
    return path, mini(vlm, path)


def test_without_fusion_and_compression_nothing_changes(vlm, tmp_path):
    """line 1"""
    mini(vlm, tmp_path / "net.safetensors", sides=(12,), fusion=0)
    given = inputs([(3, 9), (8, 4)])
    plain = vlm(**given).logits[:, -1]
    with compress(vlm, LlavaMini(side=12, artifact=str(tmp_path / "net.safetensors"))):
        torch.testing.assert_close(vlm(**given).logits[:, -1], plain, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("side", "images"), [(1, 1), (4, 1), (1, 3)])
def test_the_decoder_reads_the_text_and_a_few_tokens_an_image(vlm, made, side, images):
    """line 3"""
    with compress(vlm, LlavaMini(side=side, artifact=str(made[0]))) as session:
        vlm(**inputs([(3, 9)], images=images))
    assert [layer.stored for layer in session.cache.compressed()] == [images * side**2 + 12] * 8


def test_a_copy_of_the_first_layers_gives_their_hidden_states(vlm, tmp_path):
    """line 5: images first, so text sees in the pre-fusion what it sees in the model"""
    path = tmp_path / "net.safetensors"
    net = mini(vlm, path, noise=0.0)
    given = inputs([(0, 9)])
    want = vlm(**given, output_hidden_states=True).hidden_states[2][:, -9:]
    words = vlm.get_input_embeddings()(given["input_ids"][:, -9:])
    features = vlm.model.get_image_features(given["pixel_values"]).pooler_output[0]
    torch.testing.assert_close(net.fused(features[None], words), want, rtol=1e-5, atol=1e-4)
    read = embeddings(vlm, LlavaMini(side=1, artifact=str(path)), given)
    torch.testing.assert_close(read[:, 1:], want, rtol=1e-5, atol=1e-4)


def embeddings(model, method, given):
    """What the decoder's first layer reads."""
    seen = []
    with compress(model, method):
        hook = model.model.language_model.layers[0].register_forward_pre_hook(lambda module, args: seen.append(args[0]))
        model(**given)
    hook.remove()
    return seen[0]


def test_several_images_are_fused_one_by_one_and_the_text_is_their_mean(vlm, made):
    """line 6"""
    path, net = made
    given = inputs([(3, 9)], images=3)
    method = LlavaMini(side=1, artifact=str(path))
    read = embeddings(vlm, method, given)
    ids = given["input_ids"][0]
    words = vlm.get_input_embeddings()(ids[ids != 6])[None]
    total, soft = torch.zeros_like(words), []
    for pixels in given["pixel_values"]:
        features = vlm.model.get_image_features(pixels[None]).pooler_output[0][None]
        total += net.fused(features, words)
        soft.append(net.compressed(features, 1)[0])
    torch.testing.assert_close(read[0, [0, 1, 2, *range(6, 15)]], (total / 3)[0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(read[0, 3:6], torch.cat(soft), rtol=1e-4, atol=1e-4)
    turned = embeddings(vlm, method, given | {"pixel_values": given["pixel_values"].flip(0)})
    torch.testing.assert_close(turned[0, 3:6], read[0, 3:6].flip(0), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(turned[0, 6:], read[0, 6:], rtol=1e-4, atol=1e-4)


def test_flops_of_decoder_and_pre_fusion(vlm, made):
    """line 8: the decoder's over C^2 + q tokens, the pre-fusion's over N + q"""
    path, _ = made
    with torch.inference_mode(), compress(vlm, LlavaMini(side=4, artifact=str(path)), count_flops=True) as session:
        vlm(**inputs([(3, 9)]), logits_to_keep=1)
    shape = Shape.of(vlm, vlm.model.language_model)
    assert session.stats.prefill_flops == shape.prefill_flops([16 + 12] * 8)
    linear = 2 * sum(shape.weights[:2]) * (144 + 12)
    own = session.stats.prompt_flops - session.stats.prefill_flops
    assert linear < own < 1.6 * linear  # and the attention's, the queries' and the norms'


def test_a_budget_takes_the_largest_size_that_fits(vlm, made, tmp_path):
    given, path = inputs([(3, 9)]), str(made[0])
    for budget, tokens in (({}, 1), ({"keep": 0.5}, 16), ({"tokens": 15}, 1), ({"tokens": 1}, 1)):
        with compress(vlm, LlavaMini(artifact=path, **budget)) as session:
            vlm(**given)
        assert session.stats.visual[0] == tokens
    mini(vlm, tmp_path / "large.safetensors", sides=(4,), fusion=0)
    large = LlavaMini(artifact=str(tmp_path / "large.safetensors"), tokens=15)
    with compress(vlm, large), pytest.raises(BudgetError, match=r"leaves 15 tokens to a view, and .* makes 16 of it"):
        vlm(**given)


def test_what_makes_no_sense_is_refused(vlm, made):
    with pytest.raises(BudgetError, match="give one of them"):
        LlavaMini(side=1, keep=0.5)
    with pytest.raises(ValueError, match="side=3: this artifact has 1, 4"):
        compress(vlm, LlavaMini(side=3, artifact=str(made[0])))
    with compress(vlm, LlavaMini(artifact=str(made[0]), protect=(3, 10))), pytest.raises(BudgetError, match="protected"):
        vlm(**inputs([(3, 9)]))


def test_artifacts_are_checked(vlm, llama, made, tmp_path):
    path = tmp_path / "net.safetensors"
    path.write_bytes(made[0].read_bytes())
    check_artifacts(lambda artifact: LlavaMini(artifact=artifact), path, vlm, llama)
