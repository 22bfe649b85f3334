"""HICom in a session."""

import pytest
import torch
from helpers.vision_tools import inputs
from helpers.visual_fit import check_artifacts

from laconic import BudgetError, compress
from laconic.artifact import Artifact, numbers
from laconic.methods.tokens.hicom.method import HICom
from laconic.methods.tokens.hicom.network import Hybrid


def hybrid(model, path, blocks=(3, 4), learned=2):
    """An artifact of random weights, and its network."""
    torch.manual_seed(0)
    net = Hybrid(model, learned, "question").eval().requires_grad_(False)
    for weight in net.parameters():
        weight.add_(torch.randn_like(weight) * 0.02)
    data = {"blocks": list(blocks), "learned": learned, "query": "question"}
    Artifact.of("hicom", "trained", model, data, numbers(net)).save(path)
    return net


@pytest.fixture(scope="module")
def made(vlm, tmp_path_factory):
    path = tmp_path_factory.mktemp("hicom") / "net.safetensors"
    return path, hybrid(vlm, path)


def embeddings(model, method, given):
    """What the decoder's first layer reads."""
    seen = []
    with compress(model, method):
        hook = model.model.language_model.layers[0].register_forward_pre_hook(lambda module, args: seen.append(args[0]))
        model(**given)
    hook.remove()
    return seen[0]


def patches(model, pixels):
    """Encoder features that the projector reads, [V, 12, 12, C]."""
    return model.model.vision_tower(pixels, output_hidden_states=True).hidden_states[-2][:, 1:].unflatten(1, (12, 12))


def test_fresh_blocks_of_one_patch_change_nothing(vlm, tmp_path):
    """line 1 of the card"""
    net = Hybrid(vlm, 0, "question")
    data = {"blocks": [1], "learned": 0, "query": "question"}
    Artifact.of("hicom", "trained", vlm, data, numbers(net)).save(tmp_path / "net.safetensors")
    given = inputs([(3, 9), (8, 4)])
    plain = vlm(**given).logits[:, -1]
    with compress(vlm, HICom(artifact=str(tmp_path / "net.safetensors"))):
        torch.testing.assert_close(vlm(**given).logits[:, -1], plain, rtol=1e-4, atol=1e-4)


def test_local_then_global_tokens_stand_where_the_image_was(vlm, made):
    path, net = made
    given = inputs([(3, 9)], images=2)
    read = embeddings(vlm, HICom(block=4, artifact=str(path)), given)[0]
    ids = given["input_ids"][0]
    question = vlm.get_input_embeddings()(ids[ids != 6]).mean(0)[None]
    want = net(patches(vlm, given["pixel_values"])[:, None], question.expand(2, -1), (1, 4, 4))
    torch.testing.assert_close(read[3:25], want.flatten(0, 1), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(read[[0, 1, 2]], vlm.get_input_embeddings()(ids[:3]))
    assert len(read) == 12 + 2 * (9 + 2)


def test_images_as_frames_of_one_clip(vlm, made):
    path, net = made
    given = inputs([(3, 9)], images=3)
    read = embeddings(vlm, HICom(block=4, frames=2, artifact=str(path)), given)[0]
    ids = given["input_ids"][0]
    question = vlm.get_input_embeddings()(ids[ids != 6]).mean(0)[None]
    want = net(patches(vlm, given["pixel_values"])[None], question, (2, 4, 4))[0]
    assert len(read) == 12 + 2 * 9 + 2
    torch.testing.assert_close(read[3:23], want, rtol=1e-3, atol=1e-3)


def test_a_budget_takes_the_smallest_block_that_fits(vlm, made):
    given, path = inputs([(3, 9)]), str(made[0])
    for budget, tokens in (({}, 11), ({"keep": 0.5}, 18), ({"tokens": 17}, 11), ({"block": 2}, 38)):
        with compress(vlm, HICom(artifact=path, **budget)) as session:
            vlm(**given)
        assert session.stats.visual[0] == tokens
    with compress(vlm, HICom(artifact=path, tokens=10)), pytest.raises(BudgetError, match="makes 11 of it; raise it"):
        vlm(**given)
    with compress(vlm, HICom(artifact=path, block=1)), pytest.raises(BudgetError, match="more tokens than the 144"):
        vlm(**given)


def test_what_makes_no_sense_is_refused(vlm, made):
    with pytest.raises(BudgetError, match="give one of them"):
        HICom(block=2, keep=0.5)
    with pytest.raises(ValueError, match="frames=0"):
        HICom(frames=0)
    with compress(vlm, HICom(artifact=str(made[0]), protect=(3, 10))), pytest.raises(BudgetError, match="protected"):
        vlm(**inputs([(3, 9)]))


def test_artifacts_are_checked(vlm, llama, made, tmp_path):
    path = tmp_path / "net.safetensors"
    path.write_bytes(made[0].read_bytes())
    check_artifacts(lambda artifact: HICom(artifact=artifact), path, vlm, llama)
