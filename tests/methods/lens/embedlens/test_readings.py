"""The lens itself; numbers are the lines of the card's "must show"."""

import pytest
import torch
from helpers.vision_tools import inputs

from laconic.artifact import Artifact
from laconic.methods.lens.embedlens.readings import CLASSES, Anchors, logit_lens, nearest, norms, read, shares
from laconic.testbed.vlm_model import build_tokenizer


@pytest.fixture(scope="module")
def words():
    torch.manual_seed(0)
    return torch.randn(50, 16)


def test_1_a_word_reads_as_itself(words):
    cosines, ids = nearest(words * torch.rand(50, 1), words, 1)
    assert torch.equal(ids[:, 0], torch.arange(50))
    torch.testing.assert_close(cosines[:, 0], torch.ones(50))


@pytest.mark.parametrize("chunk", [1, 7, 50, 1000])
def test_1_chunks_give_the_same_reading(words, chunk):
    x = torch.cat([torch.randn(20, 16), words[:3]])
    expected = torch.zeros(23, 50)
    for i in range(23):
        for j in range(50):
            expected[i, j] = (x[i] @ words[j]) / (x[i].norm() * words[j].norm())
    cosines, ids = nearest(x, words, 4, chunk)
    assert torch.equal(ids, expected.topk(4).indices)
    torch.testing.assert_close(cosines, expected.topk(4).values)


def test_equal_cosines_go_to_the_smaller_id(words):
    twice = torch.cat([words, words])
    for chunk in (3, 100):
        assert nearest(words[:5], twice, 2, chunk)[1].tolist() == [[i, i + 50] for i in range(5)]


def test_2_scaling_a_token_changes_nothing_but_the_logit_lens_with_a_bias(words):
    x = torch.randn(30, 16)
    cosines, ids = nearest(x, words)
    for scale in (0.01, 7.0):
        again, same = nearest(x * scale, words)
        assert torch.equal(ids, same)
        torch.testing.assert_close(cosines, again)
    bias = torch.nn.Linear(16, 50)
    bias.weight.data, bias.bias.data = words.clone(), torch.randn(50) * 5
    assert not torch.equal(logit_lens(x, bias)[1], logit_lens(x * 7, bias)[1])
    normed = torch.nn.Sequential(torch.nn.LayerNorm(16), bias)
    assert torch.equal(logit_lens(x, normed)[1], logit_lens(x * 7, normed)[1])  # a norm hides the length again
    assert not torch.equal(logit_lens(x, normed)[1], ids)


def test_classes_by_priority():
    anchors = Anchors(vit_sink=(1,), llm_sink=(2,), dead=(3, 4))
    ids = torch.tensor([[7, 8, 9], [3, 7, 8], [3, 2, 7], [2, 9, 1], [4, 9, 9], [9, 9, 2]])
    assert [CLASSES[k] for k in anchors.classify(ids)] == ["alive", "dead", "llm_sink", "vit_sink", "dead", "llm_sink"]
    assert set(Anchors().classify(ids).tolist()) == {CLASSES.index("alive")}


def test_9_shares_per_image_with_mean_and_deviation():
    found = shares([torch.tensor([0, 2, 3, 3]), torch.tensor([3, 3]), torch.tensor([2, 2, 1, 3, 3])])
    rows = [[0.25, 0.0, 0.25, 0.5], [0.0, 0.0, 0.0, 1.0], [0.0, 0.2, 0.4, 0.4]]
    torch.testing.assert_close(found.images, torch.tensor(rows))
    for kind in range(4):
        mean = sum(row[kind] for row in rows) / 3
        assert found.mean[kind].item() == pytest.approx(mean)
        assert found.deviation[kind].item() == pytest.approx((sum((row[kind] - mean) ** 2 for row in rows) / 3) ** 0.5)


def test_readings_of_a_prompt(vlm):
    given, tokenizer = inputs([(3, 9), (8, 2)]), build_tokenizer()
    words = vlm.get_input_embeddings().weight
    features = [vlm.model.get_image_features(given["pixel_values"][b : b + 1]).pooler_output[0] for b in range(2)]
    _, ids = nearest(torch.cat(features), words)
    anchor = int(ids.flatten().bincount().argmax())
    readings = read(vlm, tokenizer, given, anchors=Anchors(dead=(anchor,)))
    assert len(readings) == 288
    assert [r.token for r in readings[:144]] == list(range(3, 147)) and readings[144].row == 1
    for reading, near in zip(readings, ids.tolist(), strict=True):
        assert reading.words == tuple(tokenizer.decode([i]) for i in near)
        assert reading.kind == ("dead" if anchor in near else "alive")
    deeper = read(vlm, tokenizer, given, layer=4, k=2)
    assert deeper[0].kind is None and len(deeper[0].words) == 2
    assert [r.words for r in deeper] != [r.words[:2] for r in readings]
    with pytest.raises(ValueError, match=r"layers 0\.\.7"):
        read(vlm, tokenizer, given, layer=9)
    with pytest.raises(ValueError, match="no images"):
        read(vlm, tokenizer, {"input_ids": given["input_ids"][:, -2:]})


def test_lengths_layer_by_layer(vlm):
    given = inputs([(3, 9), (8, 2)])
    rows = norms(vlm, given)
    states = vlm(**given, output_hidden_states=True).hidden_states  # the last one is after the final norm
    visual, real = given["input_ids"] == 6, given["attention_mask"].bool()
    assert len(rows) == 9
    for layer in range(8):
        assert rows[layer]["visual"] == pytest.approx(states[layer][visual].norm(dim=-1).mean().item(), rel=1e-4)
        assert rows[layer]["text"] == pytest.approx(states[layer][real & ~visual].norm(dim=-1).mean().item(), rel=1e-4)
    turned = torch.nn.functional.cosine_similarity(states[3][visual], states[2][visual], dim=-1).mean()
    assert rows[3]["visual_cosine"] == pytest.approx(turned.item(), rel=1e-4) and "visual_cosine" not in rows[0]


def test_the_published_anchors_belong_to_one_model():
    found = Artifact.load("embedlens-llava-1.5-7b")
    assert Anchors.of(found.data) == Anchors((1141,), (26673,), (30296,)) and found.model == "llava-1.5-7b-hf"
