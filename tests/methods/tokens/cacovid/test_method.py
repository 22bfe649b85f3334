"""CaCoVID in a session. "line n" is what the card must show."""

import pytest
import torch
from helpers.vision_tools import inputs
from helpers.visual_fit import check_artifacts

from laconic import BudgetError, compress
from laconic.artifact import Artifact, numbers
from laconic.methods.tokens.cacovid.method import CaCoVID
from laconic.methods.tokens.cacovid.network import Policy, scores
from laconic.methods.tokens.cacovid.selection import selected


@pytest.fixture(scope="module")
def made(vlm, tmp_path_factory):
    """An artifact of random weights, and its policy."""
    path = tmp_path_factory.mktemp("cacovid") / "net.safetensors"
    torch.manual_seed(0)
    net = Policy(vlm).eval().requires_grad_(False)
    for weight in net.parameters():
        weight.add_(torch.randn_like(weight) * 0.05)
    Artifact.of("cacovid", "trained", vlm, {}, numbers(net)).save(path)
    return path, net


def test_the_policy_is_the_first_layer_seen_both_ways(vlm, made):
    """The last token changes the score of the first image token: the question comes after the image."""
    _, net = made
    torch.manual_seed(0)
    prompt, rows = torch.randn(1, 20, 128), [torch.arange(2, 8), torch.arange(8, 14)]
    tokens, frames = net(prompt, rows)
    assert tokens.shape == (1, 12, 2) and frames.shape == (1, 2, 2)
    other = prompt.clone()
    other[0, -1] += 1
    assert float((net(other, rows)[0][0, 0] - tokens[0, 0]).abs().max()) > 1e-5
    layer = net.layer.decoder.layers[0]
    place = torch.arange(20)[None]
    phases, mask = net.layer.decoder.rotary_emb(prompt, place), torch.zeros(1, 1, 20, 20)  # without a mask it is causal
    hidden = layer(prompt, attention_mask=mask, position_embeddings=phases, position_ids=place)
    hidden = hidden[0] if isinstance(hidden, tuple) else hidden
    mean = torch.stack([hidden[:, at].mean(1) for at in rows], 1)
    torch.testing.assert_close(net.frames(mean), frames, rtol=1e-4, atol=1e-4)


def test_what_the_policy_wants_stays_at_its_place(vlm, made):
    path, net = made
    given = inputs([(3, 9), (8, 4)])
    with compress(vlm, CaCoVID(keep=0.25, artifact=str(path))) as session:
        vlm(**given)
    for b, pixels in enumerate(given["pixel_values"]):
        real = given["attention_mask"][b] == 1
        ids = given["input_ids"][b][real]
        words = vlm.get_input_embeddings()(ids)
        rows = (ids == 6).nonzero()[:, 0]
        words[rows] = vlm.model.get_image_features(pixels[None]).pooler_output[0]
        tokens, frames = net(words[None], [rows])
        want = selected([scores(tokens[0])], scores(frames[0]), 36, 0.5)
        padding = len(real) - len(ids)
        text = [padding + i for i in range(len(ids)) if i not in rows]
        assert session.kept(7, row=b).tolist() == sorted((padding + rows[want]).tolist() + text)
    assert session.stats.visual[0] == 36


def test_frames_share_the_budget(vlm, made):
    with compress(vlm, CaCoVID(tokens=30, artifact=str(made[0]))) as session:
        vlm(**inputs([(3, 9)], images=3))
    kept = session.kept(7)
    per_image = [int(((kept >= 3 + 144 * i) & (kept < 147 + 144 * i)).sum()) for i in range(3)]
    assert sum(per_image) == 30 and min(per_image) >= 1


def test_what_makes_no_sense_is_refused(vlm, made):
    with pytest.raises(ValueError, match=r"eta=1\.5 must lie between"):
        CaCoVID(eta=1.5)
    with compress(vlm, CaCoVID(keep=0.5, artifact=str(made[0]), protect=(3, 10))), pytest.raises(BudgetError):
        vlm(**inputs([(3, 9)]))


def test_artifacts_are_checked(vlm, llama, made, tmp_path):
    path = tmp_path / "net.safetensors"
    path.write_bytes(made[0].read_bytes())
    check_artifacts(lambda artifact: CaCoVID(keep=0.5, artifact=artifact), path, vlm, llama)
