"""Anchors found from what repeats; line 8 of the card's "must show"."""

import pytest
import torch
from helpers.planted_vlm import BOS, planted, prompt
from torch.nn.functional import normalize

from laconic.methods.lens.embedlens.anchors import ImageTokens, clustered, collect, discover, groups, recurrence
from laconic.methods.lens.embedlens.readings import CLASSES, Anchors

SIDE, WORDS = 6, {"vit_sink": 20, "llm_sink": 21, "dead": 22}
VIT, LLM, DEAD = 1, 2, 3
"""Channels that mark the planted classes; alive tokens have random numbers in 8..23."""


@pytest.fixture(scope="module")
def model():
    """The encoder lengthens tokens of channel `VIT`; layer 1 of the decoder moves tokens of channel `LLM` and <bos> in the
    same direction."""
    made = planted(SIDE, layers=3)
    made.config.vision_feature_layer = -1
    tower = made.model.vision_tower
    mlp = getattr(tower, "vision_model", tower).encoder.layers[0].mlp
    mlp.fc1.weight[0, VIT], mlp.fc2.weight[40, 0], mlp.fc2.weight[41, 0] = 10.0, 2.0, -2.0  # the projector reads neither
    words = made.get_input_embeddings().weight
    torch.manual_seed(3)
    words[3:, 8:24] = torch.randn(29, 16)
    words[BOS] = 0.0
    words[BOS, 50] = 7.0
    for name, channel in (("vit_sink", VIT), ("llm_sink", LLM), ("dead", DEAD)):
        words[WORDS[name]] = 0.0
        words[WORDS[name], channel] = 5.0
    block = made.model.language_model.layers[1].mlp
    for channel in (LLM, 50):
        block.gate_proj.weight[0, channel] = block.up_proj.weight[0, channel] = 1.0
    block.down_proj.weight[60, 0] = 10.0
    return made


def planted_images(count, seed=0):
    """Images [count, 36, 32] with 10 % / 30 % / 60 % of the classes, and the classes [count, 36]."""
    made = torch.Generator().manual_seed(seed)
    n = SIDE * SIDE
    vectors, kinds = torch.zeros(count, n, 32), torch.full((count, n), CLASSES.index("alive"))
    for b in range(count):
        order = torch.randperm(n, generator=made)
        for name, channel, at in (("vit_sink", VIT, order[:2]), ("llm_sink", LLM, order[2:4]), ("dead", DEAD, order[4:14])):
            vectors[b, at, channel] = 1.0
            kinds[b, at] = CLASSES.index(name)
        vectors[b, order[4:14], 8:24] = 0.06 * torch.randn(10, 16, generator=made)
        vectors[b, order[14:], 8:24] = 0.5 * torch.randn(n - 14, 16, generator=made)
    return vectors, kinds


def test_8_planted_classes_are_found(model):
    vectors, _ = planted_images(32)
    artifact = discover(model, [prompt(vectors[i : i + 4], SIDE, [5, 6]) for i in range(0, 32, 4)])
    assert artifact.data == {name: [word] for name, word in WORDS.items()}
    assert artifact.method == "embedlens" and artifact.settings["images"] == 32 and artifact.settings["agreement"] >= 0.95
    assert artifact.settings["shares"]["dead"] == pytest.approx(10 / 36, abs=0.03)
    fresh, truth = planted_images(8, seed=9)
    found = collect(model, [prompt(fresh, SIDE, [5, 6])])
    said = torch.cat([Anchors.of(artifact.data).classify(p.words) for p in found])
    assert float((said == truth.flatten()).float().mean()) >= 0.95


def test_what_is_collected(model):
    vectors, kinds = planted_images(3)
    for image, own, vector in zip(collect(model, [prompt(vectors, SIDE, [5])]), kinds, vectors, strict=True):
        assert torch.equal(image.outlier, own == CLASSES.index("vit_sink"))
        assert torch.equal(image.bos > 0.9, own == CLASSES.index("llm_sink"))
        plain = ~image.outlier
        torch.testing.assert_close(normalize(image.tokens[plain, :32], dim=-1), normalize(vector[plain], dim=-1))


def test_recurrence_equals_a_slow_loop():
    torch.manual_seed(0)
    tokens = [normalize(torch.randn(n, 3), dim=-1) for n in (5, 7, 4)]
    for i, found in enumerate(recurrence(tokens, 0.8)):
        for a, share in enumerate(found.tolist()):
            others = [any(float(tokens[i][a] @ y) > 0.8 for y in tokens[j]) for j in range(3) if j != i]
            assert share == sum(others) / 2


def test_groups_form_around_their_first_member():
    angle = torch.tensor([0.0, 0.1, 3.0, 0.2, 1.5, 0.0]) * torch.pi / 3
    found = groups(torch.stack([angle.cos(), angle.sin()], 1), 0.95)
    assert [g.tolist() for g in found] == [[0, 1, 3, 5], [2], [4]]


def test_images_that_share_nothing_have_no_anchors():
    torch.manual_seed(0)
    found = [
        ImageTokens(torch.randn(20, 64), torch.randint(50, (20, 3)), torch.zeros(20).bool(), torch.zeros(20))
        for _ in range(4)
    ]
    anchors, kinds = clustered(found)
    assert anchors == Anchors() and set(kinds.tolist()) == {CLASSES.index("alive")}


def test_one_image_is_not_enough(model):
    with pytest.raises(ValueError, match="1 images"):
        discover(model, [prompt(planted_images(1)[0], SIDE, [5])])
