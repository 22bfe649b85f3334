"""TriAttention against the sum of cosines, written out with complex numbers on keys before RoPE."""

import pytest
import torch
from helpers.tri_tools import artifact
from helpers.zoo import ALL, scaled
from helpers.zoo import prompt as prompt_of

import laconic
from laconic import TriAttention
from laconic.errors import ArtifactError
from laconic.methods.cache.triattention.method import OFFSETS

N = 60


class Recording(TriAttention):
    """Remembers what it scored, at which position, and of which tokens."""

    def attach(self, model):
        super().attach(model)
        self.seen = []

    def score(self, obs):
        found = super().score(obs)
        at = int(obs.step.position_ids[0, -1]) + 1
        self.seen.append((obs.layer, at, obs.index.clone(), found.clone()))
        return found


@torch.no_grad()
def slow(model, layer, ids, index, at, centre, size):
    """[Hkv, n]: z-scores of the mean sum of cosines, one query head and key at a time, from keys before RoPE."""
    config = model.config
    d, kv, heads = config.head_dim, config.num_key_value_heads, config.num_attention_heads
    kept = {}
    hook = model.model.layers[layer].self_attn.k_proj.register_forward_hook(lambda m, a, out: kept.update(k=out[0]))
    model(ids)
    hook.remove()
    keys = kept["k"].view(-1, kv, d)
    complexes = torch.complex(keys[..., : d // 2], keys[..., d // 2 :])
    c = torch.complex(centre[:, : d // 2], centre[:, d // 2 :])
    omega = model.model.rotary_emb.inv_freq
    n = index.shape[1]
    scores = torch.zeros(heads, n)
    for h in range(heads):
        for j in range(n):
            token = int(index[h // (heads // kv), j])
            k = complexes[token, h // (heads // kv)]
            for offset in OFFSETS:
                angle = omega * (at + offset - token) + c[h].angle() - k.angle()
                cosines = c[h].abs() * k.abs() * angle.double().cos()
                scores[h, j] += (cosines + (size[h] - c[h].abs()) * k.abs()).sum() / len(OFFSETS)
    scores = (scores - scores.mean(1, keepdim=True)) / scores.std(1, unbiased=False, keepdim=True)
    return scores.view(kv, -1, n).amax(1)


@pytest.mark.parametrize("kind", ["drawn", "no centre", "no spread"])
def test_scores_are_the_sum_of_cosines(llama, prompt, tmp_path, kind):
    """Also when every query is the centre (m = |c|), and when there is none."""
    path, centre, size = artifact(llama, tmp_path, kind)
    method, ids = Recording(keep=0.5, artifact=path), prompt(1, 12)
    with laconic.compress(llama, method):
        llama(ids)
    for layer, at, index, found in method.seen:
        want = slow(llama, layer, ids, index[0], at, centre[layer], size[layer])
        torch.testing.assert_close(found[0], want.float(), atol=2e-3, rtol=2e-3)
    assert [at for _, at, _, _ in method.seen] == [12] * 4


def test_scaled_rope_scales_both_terms_of_the_sum(tmp_path):
    """YaRN multiplies queries and keys by a factor of its own, so all scores by its square, which the z-score takes out."""
    model = scaled("yarn")
    assert model.model.rotary_emb.attention_scaling > 1.1
    path, centre, size = artifact(model, tmp_path)
    method, ids = Recording(keep=0.5, artifact=path), prompt_of(1, 12)
    with torch.no_grad(), laconic.compress(model, method):
        model(ids)
    for layer, at, index, found in method.seen:
        want = slow(model, layer, ids, index[0], at, centre[layer], size[layer])
        torch.testing.assert_close(found[0], want.float(), atol=2e-3, rtol=2e-3)


def test_kept_keys_are_scored_at_their_own_positions_after_cuts(llama, prompt, tmp_path):
    path, centre, size = artifact(llama, tmp_path)
    method, ids = Recording(tokens=6, every=4, artifact=path), prompt(1, 20)
    with laconic.compress(llama, method) as session:
        out = llama.generate(ids, max_new_tokens=10, do_sample=False, pad_token_id=0)
    layer, at, index, found = method.seen[-4]  # layer 0, whose keys do not depend on what was cut
    assert layer == 0 and at == 28 and len(set(index[0, 0].tolist()) - set(index[0, 1].tolist())) > 0
    want = slow(llama, 0, out[:, :-1], index[0], at, centre[0], size[0])
    torch.testing.assert_close(found[0], want.float(), atol=2e-3, rtol=2e-3)
    assert session.cache.seen == 29


def test_a_cut_falls_on_every_so_many_tokens(llama, prompt, tmp_path):
    path, _, _ = artifact(llama, tmp_path)
    stored = []
    with laconic.compress(llama, TriAttention(tokens=10, every=8, artifact=path)) as session:
        llama(prompt(1, 20))
        for token in prompt(1, 30, seed=1)[0]:
            llama(token.view(1, 1), past_key_values=session.cache)
            stored.append((session.cache.seen, int(session.cache.layers[2].stored)))
    for seen, entries in stored:
        since = seen - 20 if seen < 24 else seen % 8
        assert entries == 10 + since


def test_the_live_queries_have_no_say(llama, prompt, tmp_path):
    path, _, _ = artifact(llama, tmp_path)
    found = []

    class Blind(Recording):
        def score(self, obs):
            obs.queries = torch.full_like(obs.queries, float("nan"))
            return super().score(obs)

    for cls in (Recording, Blind):
        with laconic.compress(llama, cls(keep=0.3, artifact=path)) as session:
            llama(prompt(1, N))
        found.append([session.kept(x, y).tolist() for x in range(4) for y in range(2)])
    assert found[0] == found[1]


def test_a_batch_is_scored_row_by_row_where_rope_turns_some_channels(tmp_path):
    """As `generate()` gives them: the second row is padded, and its positions are others."""
    model = ALL["phi3-partial"].build("sdpa")
    path, _, _ = artifact(model, tmp_path)
    ids = torch.randint(5, 60, (2, 24), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[1, :6] = 0
    seen = []
    for rows, given in ((ids, mask), (ids[:1], mask[:1]), (ids[1:, 6:], mask[1:, 6:])):
        method = Recording(keep=0.5, artifact=path)
        with laconic.compress(model, method), torch.no_grad():
            model(rows, attention_mask=given, position_ids=(given.cumsum(-1) - 1).clamp(min=0))
        seen.append([scores for _, _, _, scores in method.seen])
    for both, first, second in zip(*seen, strict=True):
        torch.testing.assert_close(both[:1], first, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(both[1:, :, 6:], second, atol=1e-4, rtol=1e-4)


def test_without_an_artifact_it_says_what_to_do(llama):
    with pytest.raises(ArtifactError, match="laconic fit triattention"):
        laconic.compress(llama, TriAttention(keep=0.5))
    with pytest.raises(ValueError, match="every=0 must be a whole number"):
        TriAttention(every=0)
