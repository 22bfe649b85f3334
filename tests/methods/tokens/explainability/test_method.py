"""Explainability-guided compression; numbers are the lines of the card's "must show"."""

import pytest
import torch
from helpers.explained_toy import ANSWER, ASK, ASK_OTHER, CONTENTS, OBJECT, OTHER, SIDE, Toy, host, images
from helpers.planted_vlm import prompt
from helpers.vision_tools import inputs

from laconic import ArtifactError, BudgetError, UnsupportedModelError, compress
from laconic.artifact import Artifact, numbers
from laconic.fit import Trainer
from laconic.methods.tokens.explainability.fit import ExplainabilityFit
from laconic.methods.tokens.explainability.method import Explainability, instruction_attention
from laconic.methods.tokens.explainability.network import RelevanceNet, load
from laconic.stream.assemble import assemble, choose
from laconic.stream.contract import TokenMethod


def saved(path, model=None, seed=0, kernel=5):
    """A network of random weights as an artifact, for any host if none is given."""
    torch.manual_seed(seed)
    net = RelevanceNet(kernel)
    net(torch.rand(32, 144))  # moves the running figures of the batch norms
    if model is None:
        Artifact("explainability", "trained", "any", None, {"kernel": kernel}, numbers(net)).save(path)
    else:
        Artifact.of("explainability", "trained", model, {"kernel": kernel}, numbers(net)).save(path)
    return str(path)


class Toys(ExplainabilityFit):
    """Asks the toy's questions."""

    def questions(self, processor):
        return Toy(0, 160).ask


class Probe(TokenMethod):
    """Notes what it is shown and keeps what `rank` says."""

    name = "probe"

    def __init__(self, keep=0.25, rank=None):
        super().__init__(keep=keep)
        self.rank, self.seen = rank, []

    def parameters(self):
        return {}

    def cut(self, stream):
        self.seen.append((stream, instruction_attention(stream)))
        if self.rank is None:
            return None
        kept = []
        for row, attention in enumerate(self.seen[-1][1]):
            scores = self.rank(row, attention)
            kept.append(stream.images(row)[choose(scores, round(self.budget.keep * len(scores)))])
        return assemble(stream, kept)


def test_1_keeping_all_equals_the_host(vlm):
    given = inputs([(3, 9), (1, 4)])
    plain = vlm(**given).logits
    with compress(vlm, Explainability(keep=1.0)):  # needs no weights
        torch.testing.assert_close(vlm(**given).logits, plain, rtol=1e-4, atol=1e-4)


def test_6_one_network_for_any_number_of_tokens():
    net = RelevanceNet().eval()
    assert sum(p.numel() for p in net.parameters()) < 300_000
    for n in (64, 576, 3000):
        attention = torch.rand(2, n)
        said = net(attention)
        assert said.shape == (2, n) and bool(said.isfinite().all())
        torch.testing.assert_close(net(attention * 7), said, rtol=1e-4, atol=1e-5)  # only shares count
    near = net(torch.cat([attention, attention[:, :1]], 1) * 1.0)
    assert near.shape == (2, 3001)


def test_the_network_is_five_separable_convolutions():
    net = RelevanceNet(3)
    widths = [
        (m.in_channels, m.out_channels, m.kernel_size[0], m.groups) for m in net.modules() if isinstance(m, torch.nn.Conv1d)
    ]
    expected = []
    for before, after in ((1, 32), (32, 64), (64, 128), (128, 256), (256, 512)):
        expected += [(before, before, 3, before), (before, after, 1, 1)]
    assert widths == [*expected, (512, 1, 1, 1)]


@pytest.mark.parametrize("texts", [[(3, 9)], [(3, 9), (8, 2)]])
def test_7_the_block_equals_the_attention_of_the_eager_model(vlm, texts):
    given = inputs(texts)
    probe = Probe()
    with compress(vlm, probe):
        vlm(**given)
    (_, found), *_ = probe.seen
    before = vlm.config._attn_implementation
    vlm.set_attn_implementation("eager")
    rows = vlm(**given, output_attentions=True).attentions[0]
    vlm.set_attn_implementation(before)
    for b, (_, behind) in enumerate(texts):
        shown = (given["input_ids"][b] == 6).nonzero()[:, 0]
        expected = torch.zeros(144)
        for head in range(rows.shape[1]):
            for row in range(rows.shape[2] - behind, rows.shape[2]):
                expected += rows[b, head, row, shown] / (rows.shape[1] * behind)
        torch.testing.assert_close(found[b], expected, rtol=1e-4, atol=1e-7)


def test_what_the_network_ranks_first_goes_on(vlm, tmp_path):
    path = saved(tmp_path / "net.safetensors")
    given = inputs([(3, 9), (8, 2)])
    probe = Probe(keep=1.0)
    probe.budget = Explainability(keep=0.5).budget  # asked, but removes nothing
    with compress(vlm, probe):
        vlm(**given)
    (stream, attention), *_ = probe.seen
    with compress(vlm, Explainability(keep=0.25, artifact=path)) as session:
        vlm.generate(**given, max_new_tokens=2, do_sample=False)
    for b in range(2):
        best = load(Artifact.load(path))(attention[b][None])[0].topk(36).indices.sort().values
        at = stream.place[b, stream.images(b)][best]
        text = stream.place[b, stream.texts(b)]
        kept = session.kept(3, row=b)
        assert kept[:-1].tolist() == sorted(at.tolist() + text.tolist())  # the last is the first answer token
    assert session.stats.achieved == pytest.approx(0.25)


@pytest.mark.slow
def test_9_another_question_keeps_other_tokens(trained):
    model, path = trained
    vectors, _, _ = images(4, 77)
    kept = []
    for ask, kind in ((ASK, OBJECT), (ASK_OTHER, OTHER)):
        with compress(model, Explainability(keep=0.25, artifact=path)) as session:
            model.generate(**prompt(vectors, SIDE, [ask]), max_new_tokens=1, do_sample=False)
        kept.append([set(session.kept(0, row=b).tolist()) for b in range(4)])
        for b in range(4):
            own = {n + 1 for n in (vectors[b, :, kind] > 0).nonzero()[:, 0].tolist()}
            assert len(own & kept[-1][b]) >= 10  # of 12
    assert all(a != b for a, b in zip(*kept, strict=True))


def test_10_all_layers_store_less(vlm, tmp_path):
    path = saved(tmp_path / "net.safetensors")
    with compress(vlm, Explainability(keep=0.25, artifact=path)) as session:
        vlm.generate(**inputs([(3, 9)]), max_new_tokens=1, do_sample=False)
    assert [layer.stored for layer in session.cache.compressed()] == [12 + 36] * 8
    assert session.stats.visual == dict.fromkeys(range(8), 36.0)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The toy host and a network trained on its right answers (160 images, 80 steps)."""
    model, path = host(), tmp_path_factory.mktemp("toy") / "net.safetensors"
    Trainer(Toys(samples=160, new_tokens=1, steps=80, batch_size=32), model, Toy(0, 1)).run().save(path)
    return model, str(path)


@pytest.mark.slow
def test_8_oracle_network_attention_random(trained):
    """Right answers on images never trained on, 16 of 64 tokens kept."""
    from laconic.methods.tokens.explainability.relevance import explained

    model, path = trained
    vectors, answers, _ = images(120, 99)
    given = prompt(vectors, SIDE, [ASK])
    full = model.generate(**given, max_new_tokens=1, do_sample=False)[:, -1]
    model.set_attn_implementation("eager")
    labels = [explained(model, prompt(v[None], SIDE, [ASK]), a[None])[1] for v, a in zip(vectors, full, strict=True)]
    model.set_attn_implementation("sdpa")

    def share(method):
        with compress(model, method):
            said = model.generate(**given, max_new_tokens=1, do_sample=False)[:, -1]
        return float((said - ANSWER == answers).float().mean())

    net, drawn = load(Artifact.load(path)), torch.Generator().manual_seed(0)
    oracle = share(Probe(rank=lambda row, attention: labels[row]))
    learned = share(Explainability(keep=0.25, artifact=path))
    attended = share(Probe(rank=lambda row, attention: attention))
    by_chance = share(Probe(rank=lambda row, attention: torch.rand(64, generator=drawn)))
    assert learned == share(Probe(rank=lambda row, attention: net(attention[None])[0]))
    assert oracle >= learned > attended + 0.05 and attended > by_chance + 0.05 and by_chance > 1 / CONTENTS


def test_several_images_are_one_line_of_tokens(vlm, tmp_path):
    path = saved(tmp_path / "net.safetensors")
    with compress(vlm, Explainability(keep=0.25, artifact=path)) as session:
        vlm.generate(**inputs([(3, 9)], images=2), max_new_tokens=1, do_sample=False)
    assert session.stats.visual_in == 288 and session.stats.visual[0] == 72


def test_positions_can_be_counted_anew(vlm, tmp_path):
    path, given = saved(tmp_path / "net.safetensors"), inputs([(3, 9)])
    out = {}
    for policy in ("gather", "renumber"):
        with compress(vlm, Explainability(keep=0.25, artifact=path, positions=policy)) as session:
            out[policy] = vlm(**given).logits[0, -1], session.kept(0)
    assert torch.equal(out["gather"][1], out["renumber"][1])
    assert not torch.allclose(out["gather"][0], out["renumber"][0], atol=1e-3)


def test_images_behind_the_question_are_refused(vlm, tmp_path):
    path = saved(tmp_path / "net.safetensors")
    with (
        compress(vlm, Explainability(keep=0.25, artifact=path)),
        pytest.raises(UnsupportedModelError, match="images first"),
    ):
        vlm(**inputs([(9, 0)]))


def test_protected_tokens_stay(vlm, tmp_path):
    path = saved(tmp_path / "net.safetensors")
    with compress(vlm, Explainability(keep=0.1, artifact=path, protect=(3, 10))) as session:
        vlm.generate(**inputs([(3, 9)]), max_new_tokens=1, do_sample=False)
    assert set(range(3, 10)) <= set(session.kept(0).tolist()) and session.stats.visual[0] == 14
    with (
        compress(vlm, Explainability(keep=0.1, artifact=path, protect=(3, 60))),
        pytest.raises(BudgetError, match="are protected"),
    ):
        vlm(**inputs([(3, 9)]))


def test_artifacts_are_checked(vlm, llama, tmp_path):
    with pytest.raises(ArtifactError, match=r"none is shipped.*`laconic fit explainability"):
        compress(vlm, Explainability(keep=0.5))
    with pytest.raises(ArtifactError, match="does not exist"):
        compress(vlm, Explainability(keep=0.5, artifact=str(tmp_path / "none.safetensors")))
    with pytest.raises(ArtifactError, match="made for other weights"):
        compress(vlm, Explainability(keep=0.5, artifact=saved(tmp_path / "other.safetensors", llama)))
    (tmp_path / "broken.safetensors").write_bytes(b"nothing")
    with pytest.raises(ArtifactError, match="is not an artifact"):
        compress(vlm, Explainability(keep=0.5, artifact=str(tmp_path / "broken.safetensors")))
    with pytest.raises(ValueError, match="choose 'gather' or 'renumber'"):
        Explainability(positions="moved")
