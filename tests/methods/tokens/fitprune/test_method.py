"""FitPrune at inference against a slow loop; "line n" is what the card must show. The search: test_fit.py."""

from dataclasses import dataclass, field

import pytest
import torch
from helpers.vision_exact import embedded, generate, run
from helpers.vision_tools import inputs, random_vlm

from laconic import ArtifactError, BudgetError, compress
from laconic.artifact import Artifact
from laconic.methods.tokens.fitprune import method as fitprune
from laconic.methods.tokens.fitprune.fit import Search
from laconic.methods.tokens.fitprune.method import FitPrune, for_budget, received, shares_left
from laconic.stream.contract import TokenMethod

DELETED = {30: [0, 20, 0, 30, 0, 0, 14, 0], 60: [40, 30, 20, 0, 0, 0, 33, 2]}


@pytest.fixture(scope="module")
def artifact(vlm, tmp_path_factory):
    fits = [{"reduction": r, "deleted": [d / 144 for d in deleted]} for r, deleted in DELETED.items()]
    path = tmp_path_factory.mktemp("fitprune") / "r.safetensors"
    Artifact.of("fitprune", "measured", vlm, {"fits": [*fits, {"reduction": 1, "deleted": [0.0] * 8}]}).save(path)
    return str(path)


def slow_choice(model, given, deleted):
    """Tokens that enter each layer, by the product score, with attention maps written out; one prompt."""
    stack = model.model.language_model
    hidden, visual = embedded(model, given)
    place = torch.arange(hidden.shape[1])
    before = stack.config._attn_implementation
    stack.set_attn_implementation("eager")
    entering = []
    try:
        for i, layer in enumerate(stack.layers):
            entering.append(place.tolist())
            n = hidden.shape[1]
            causal = torch.full((n, n), float("-inf")).triu(1)[None, None]
            phases = stack.rotary_emb(hidden, place[None])
            _, maps = layer.self_attn(layer.input_layernorm(hidden), position_embeddings=phases, attention_mask=causal)
            hidden = layer(hidden, attention_mask=causal, position_embeddings=phases)
            peak = maps[0].amax(0).double()
            at = visual.nonzero()[:, 0].tolist()
            scores = {}
            for j in at:
                cross = sum(float(peak[t, j]) for t in range(at[-1] + 1, n))
                scores[j] = cross * sum(float(peak[t, j]) for t in at) / len(at)
            gone = sorted(at, key=lambda j: scores[j])[: deleted[i]]
            stays = torch.tensor([t for t in range(n) if t not in gone])
            hidden, visual, place = hidden[:, stays], visual[stays], place[stays]
    finally:
        stack.set_attn_implementation(before)
    return entering


def test_an_artifact_of_zeros_changes_nothing(vlm, artifact):
    """line 1"""
    given = inputs([(3, 9), (1, 5)])
    plain = vlm(**given).logits
    for method in (FitPrune(artifact=artifact, reduction=1), FitPrune(artifact=artifact, keep=1.0)):
        with compress(vlm, method):
            torch.testing.assert_close(vlm(**given).logits, plain, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("reduction", DELETED)
def test_kept_tokens_lengths_and_decoding(vlm, artifact, reduction):
    """lines 3 and 7: a slow loop over the product score; layer l's cache keeps what layer l ran on; original positions"""
    given = inputs([(3, 9)])
    entering = slow_choice(vlm, given, DELETED[reduction])
    left = 144
    for tokens, deleted in zip(entering, DELETED[reduction], strict=True):
        assert len(tokens) == 12 + left
        left -= deleted
    with compress(vlm, FitPrune(artifact=artifact, reduction=reduction)) as session:
        got = generate(vlm, given)[0]
    for layer, tokens in enumerate(entering):
        assert [n for n in session.kept(layer).tolist() if n < 156] == tokens

    def change(layer, hidden, visual, positions):
        stays = torch.isin(positions, torch.tensor(entering[layer]))
        return hidden[stays], visual[stays], positions[stays]

    want, _, lengths = run(vlm, given, change)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)
    assert [layer.stored - 3 for layer in session.cache.compressed()] == lengths == [len(tokens) for tokens in entering]


def test_rows_of_a_padded_batch_choose_as_alone(vlm, artifact):
    given = inputs([(3, 9), (8, 2)])
    with compress(vlm, FitPrune(artifact=artifact)) as session:
        vlm(**given)
        batch = [session.kept(7, row=b) for b in range(2)]
    for b, first in enumerate((1, 2)):
        real = given["attention_mask"][b] == 1
        alone = {"input_ids": given["input_ids"][b : b + 1, real], "pixel_values": given["pixel_values"][b : b + 1]}
        with compress(vlm, FitPrune(artifact=artifact)) as session:
            vlm(**alone)
            shift = int((~real).sum())
            assert (session.kept(7) + shift).tolist() == batch[b].tolist(), first


def test_several_images_are_ranked_together_by_the_text_behind_them(vlm, artifact):
    given = inputs([(3, 9)], images=2)
    with compress(vlm, FitPrune(artifact=artifact, reduction=30)) as session:
        vlm(**given)
    assert [session.stats.visual[i] for i in range(8)] == [2 * n for n in (144, 144, 124, 124, 94, 94, 94, 80)]
    with (
        pytest.raises(ValueError, match="ends with its image"),
        compress(vlm, FitPrune(artifact=artifact, reduction=30)),
    ):
        vlm(**inputs([(3, 0)]))


@pytest.mark.parametrize("budget", [{"keep": 0.9}, {"keep": 0.6}, {"tokens": 100}, {"bytes": 450_000}])
def test_between_fits_the_mean_share_is_met(vlm, artifact, budget):
    with compress(vlm, FitPrune(artifact=artifact, **budget)) as session:
        vlm(**inputs([(3, 9)]))
    assert session.stats.achieved == pytest.approx(session.stats.asked, abs=1 / 144)


def test_shares():
    assert shares_left([0.25, 0.5, 0.5, 0.9]) == [1.0, 0.75, 0.25, 0.0]
    fits = [[1.0, 0.5, 0.0], [1.0, 0.8, 0.6]]
    assert for_budget(fits, 0.5) == pytest.approx([1.0, 0.5, 0.0])
    assert for_budget(fits, 0.65) == pytest.approx([1.0, 0.65, 0.3])
    assert for_budget(fits, 0.9) == pytest.approx([1.0, 0.9, 0.8])
    assert for_budget(fits, 0.4) is None


def test_bad_settings(vlm, llama, artifact):
    with pytest.raises(ValueError, match="not both"):
        FitPrune(reduction=50, keep=0.5)
    with pytest.raises(BudgetError, match="not for 55"):
        compress(vlm, FitPrune(artifact=artifact, reduction=55))
    with pytest.raises(BudgetError, match="below what the artifact"):
        compress(vlm, FitPrune(artifact=artifact, keep=0.1))
    with pytest.raises(ArtifactError, match="laconic fit fitprune"):
        compress(vlm, FitPrune())
    with pytest.raises(ValueError, match="32 layers, the model has 8"):
        compress(vlm, FitPrune(artifact="fitprune-llava-1.5-7b", reduction=60))


@dataclass(kw_only=True)
class Totals(TokenMethod):
    """Notes (cross, self, token) of the first prompt at every layer, before anything is deleted after it."""

    name = "totals"
    claims = frozenset()
    found: list = field(default_factory=list)

    def cuts(self, depth):
        return range(1, depth)

    def observes(self, depth):
        return range(depth - 1)

    def cut(self, stream):
        self.found.append([*received(stream)[0], stream.place[0, stream.shown[0]]])


def divergence(model, given, *methods):
    """How much of the whole model's totals is missing among what goes on, mean over layers, cross and self."""
    runs = []
    for chosen in ((), methods):
        totals = Totals(keep=0.5)
        with compress(model, totals, *chosen), torch.no_grad():
            model(**given)
        runs.append(totals.found)
    missing = []
    for i in range(len(runs[0]) - 1):
        goes_on = torch.isin(runs[1][i][2], runs[1][i + 1][2])
        for kind in range(2):
            whole, left = float(runs[0][i][kind].sum()), float(runs[1][i][kind][goes_on].sum())
            missing.append(max(0.0, 1 - left / whole))
    return sum(missing) / len(missing)


def test_less_of_the_totals_goes_than_with_one_cut_or_at_random(tmp_path, monkeypatch):
    """line 8: most tokens get hardly any attention; equal FLOPs as they run. What is held against the whole model is what
    the fit bounds, the totals of the tokens that go on, before the softmax of the next layer spreads them anew."""
    model = random_vlm()
    for layer in model.model.language_model.layers:
        layer.self_attn.q_proj.weight.mul_(2.5)
        layer.self_attn.k_proj.weight.mul_(2.5)
    search = Search(model, [inputs([(3, 9)], seed=seed) for seed in range(2)])
    _, deleted = search.fit(0.5)
    flops = search.share_of_macs(deleted)
    single = min((k / 144 for k in range(144)), key=lambda d: abs(search.share_of_macs([0, d] + [0] * 6) - flops))
    fresh = [inputs([(3, 9)], seed=seed) for seed in range(4, 6)]

    def run(deleted):
        path = tmp_path / "r.safetensors"
        Artifact.of("fitprune", "measured", model, {"fits": [{"reduction": 60, "deleted": deleted}]}).save(path)
        return sum(divergence(model, one, FitPrune(artifact=str(path))) for one in fresh)

    ours = run(deleted)

    def last_token(stream):
        rows = stream.obs.last().mean((1, 2))[:, -stream.obs.new :]
        return [(rows[b, stream.shown[b]], torch.ones(1)) for b in range(len(rows))]

    def chance(stream):
        return [(torch.rand(int(shown.sum())), torch.ones(1)) for shown in stream.shown]

    monkeypatch.setattr(fitprune, "received", last_token)
    fastv = run([0, single] + [0] * 6)
    monkeypatch.setattr(fitprune, "received", chance)
    torch.manual_seed(0)
    random = run(deleted)
    assert ours < 0.9 * fastv and ours < 0.9 * random, (ours, fastv, random)
