"""SCOUT against full attention and loops written from its definition; its cache, its counters, and padding."""

import math

import pytest
import torch

import laconic
from laconic.layers.entries import Entries
from laconic.methods.layers.scout.cache import ScoutCache
from laconic.methods.layers.scout.network import CheckpointAttention, ScoutConfig, ScoutForCausalLM, WindowAttention

SIZES = {"vocab_size": 61, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}


def scout(every=4, window=6, seed=0):
    torch.manual_seed(seed)
    model = laconic.Scout(every=every, window=window).model(**SIZES, pad_token_id=0, eos_token_id=None).eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.ndim == 2 and "embed" not in name:
                p.mul_(10)
    return model.requires_grad_(False)


def drawn(n, heads=2, size=8, rows=1, seed=1):
    made = torch.Generator().manual_seed(seed)
    q, k, v = (torch.randn(rows, heads, n, size, generator=made) for _ in range(3))
    return q, Entries(k, v, torch.arange(n).expand(rows, n))


def attention(cls, every=4, window=6):
    sizes = {**SIZES, "hidden_size": 16, "num_attention_heads": 2}
    return cls(ScoutConfig(every=every, window=window, **sizes))


def slow(q, new, seen):
    """One query after another over the keys that `seen(t)` lists."""
    out = torch.zeros_like(q)
    for head in range(q.shape[1]):
        for t in range(q.shape[2]):
            at = seen(t)
            scores = [float(q[0, head, t] @ new.keys[0, head, j]) for j in at]
            top = max(scores)
            weights = [math.exp(s - top) for s in scores]
            for w, j in zip(weights, at, strict=True):
                out[0, head, t] += w / sum(weights) * new.values[0, head, j]
    return out


@pytest.mark.parametrize("every", [1, 3, 4, 50])
def test_2_a_token_sees_the_checkpoints_before_it_and_itself_once(every):
    q, new = drawn(23)

    def seen(t):
        at = [j for j in range(t) if (j + 1) % every == 0]
        assert len(at) == t // every
        return [*at, t]

    torch.testing.assert_close(attention(CheckpointAttention, every).attend(q, new, None), slow(q, new, seen))
    if every == 50:  # no checkpoint yet: each token is by itself
        assert torch.equal(attention(CheckpointAttention, every).attend(q, new, None), new.values)


def test_1_one_in_one_is_full_causal_attention():
    q, new = drawn(40)
    want = torch.nn.functional.scaled_dot_product_attention(q, new.keys, new.values, is_causal=True, scale=1.0)
    torch.testing.assert_close(attention(CheckpointAttention, 1).attend(q, new, None), want, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("window", [1, 5, 6, 40])
def test_the_mixer_sees_the_last_tokens(window):
    q, new = drawn(23)
    found = attention(WindowAttention, window=window).attend(q, new, None)
    torch.testing.assert_close(found, slow(q, new, lambda t: range(max(0, t - window + 1), t + 1)))


def test_3_no_logit_depends_on_a_later_token():
    model, ids = scout(), torch.randint(1, 61, (1, 30), generator=torch.Generator().manual_seed(2))
    want = model(ids).logits
    for place in (0, 3, 4, 11, 29):
        other = ids.clone()
        other[0, place] = other[0, place] % 60 + 1
        changed = (model(other).logits - want).abs().amax(-1)[0] > 1e-6
        assert not changed[:place].any() and changed[place]


def test_what_is_far_outside_of_all_windows_is_seen_through_checkpoints_alone():
    ids = torch.randint(1, 61, (1, 40), generator=torch.Generator().manual_seed(2))
    other = ids.clone()
    other[0, 2] = other[0, 2] % 60 + 1
    for every, reaches in ((4, True), (100, False)):  # two layers with windows of 6 reach ten tokens back
        model = scout(every)
        assert bool((model(other).logits - model(ids).logits)[0, -1].abs().max() > 1e-6) is reaches


@pytest.mark.parametrize("prefill", [1, 3, 4, 5, 6, 7, 12, 13, 23])
def test_4_token_by_token_equals_one_pass(prefill):
    model, ids = scout(), torch.randint(1, 61, (2, 26), generator=torch.Generator().manual_seed(2))
    want, cache = model(ids).logits, ScoutCache(2)
    found = [model(ids[:, :prefill], past_key_values=cache).logits]
    found += [model(token, past_key_values=cache).logits for token in ids[:, prefill:].split(1, 1)]
    torch.testing.assert_close(torch.cat(found, 1), want, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("n", "window", "every"), [(3, 6, 4), (4, 6, 4), (25, 6, 4), (25, 30, 7), (25, 1, 1), (25, 5, 40)])
def test_5_a_layer_stores_its_window_and_one_in_k(n, window, every):
    model, ids = scout(every, window), torch.randint(1, 61, (1, n), generator=torch.Generator().manual_seed(3))
    for cut in {1, n // 2, n}:
        cache = ScoutCache(2)
        for part in filter(lambda x: x.shape[1], (ids[:, :cut], ids[:, cut:])):
            model(part, past_key_values=cache)
        assert cache.seen == n and all(cache.entries(layer) == (min(n, window), n // every) for layer in range(2))


def test_6_the_products_that_run_are_near_those_that_count(monkeypatch):
    """Scores that are computed: n / k of each query and its own; at most twice the window in blocks of queries."""
    products = {}
    for cls in (WindowAttention, CheckpointAttention):
        real = cls.attend

        def counted(self, q, new, past, cls=cls, real=real):
            products[cls] = 0

            def weighed(scores, seen):
                products[cls] += scores[0, 0].numel()
                return original(scores, seen)

            monkeypatch.setattr("laconic.methods.layers.scout.network.weighed", weighed)
            return real(self, q, new, past)

        monkeypatch.setattr(cls, "attend", counted)
    from laconic.layers.entries import weighed as original

    model, n = scout(every=8, window=16), 128
    model(torch.ones(1, n, dtype=torch.long))
    assert products[CheckpointAttention] == n * (n // 8 + 1)
    assert n * 16 <= products[WindowAttention] <= 2 * n * 16


def test_7_only_distances_count():
    model = scout()
    q, new = drawn(20)
    x = torch.randn(1, 20, 32)
    layer = model.layers[0]
    outs = []
    for shift in (0, 40):  # a multiple of k: the same tokens are checkpoints
        places = torch.arange(shift, shift + 20)[None]
        outs.append(layer(x, model.rotary_emb(x, places), places, None, None)[0])
    torch.testing.assert_close(outs[0], outs[1], atol=1e-4, rtol=1e-4)
    assert q.shape == new.keys.shape


def test_8_a_padded_row_is_as_if_it_were_alone():
    model, ids = scout(), torch.randint(1, 61, (3, 22), generator=torch.Generator().manual_seed(4))
    mask = torch.ones_like(ids)
    for row, pad in enumerate((0, 5, 10)):
        mask[row, :pad] = 0
        ids[row, :pad] = 0
    cache = ScoutCache(2)
    whole = [model(ids[:, :17], attention_mask=mask[:, :17], past_key_values=cache).logits]
    whole += [model(ids[:, i : i + 1], attention_mask=mask[:, : i + 1], past_key_values=cache).logits for i in range(17, 22)]
    found = torch.cat(whole, 1)
    for row, pad in enumerate((0, 5, 10)):
        alone = model(ids[row : row + 1, pad:]).logits[0]
        torch.testing.assert_close(found[row, pad:], alone, atol=1e-4, rtol=1e-4)
    assert torch.isfinite(found).all()


@pytest.mark.parametrize("settings", [{"num_beams": 1}, {"num_beams": 3}])
def test_generate_reads_every_token_once_and_says_what_it_says_without_a_cache(settings):
    model, ids = scout(), torch.randint(1, 61, (2, 9), generator=torch.Generator().manual_seed(5))
    greedy = {"max_new_tokens": 12, "do_sample": False, "pad_token_id": 0, **settings}
    lengths = []
    model.embed_tokens.register_forward_hook(lambda _, args, out: lengths.append(out.shape[1]))
    with_cache = model.generate(ids, **greedy)
    assert lengths[0] == 9 and set(lengths[1:]) == {1}
    assert torch.equal(with_cache, model.generate(ids, use_cache=False, **greedy))


def test_saved_and_loaded_it_is_the_same(tmp_path):
    model, ids = scout(), torch.randint(1, 61, (1, 9))
    model.save_pretrained(tmp_path)
    again = ScoutForCausalLM.from_pretrained(tmp_path).eval()
    assert (again.config.every, again.config.window) == (4, 6)
    torch.testing.assert_close(again(ids).logits, model(ids).logits)


def test_10_it_learns():
    torch.manual_seed(0)
    model = laconic.Scout(every=4, window=6).model(**SIZES, tie_word_embeddings=True)
    assert model.lm_head.weight is model.embed_tokens.weight
    ids = torch.randint(1, 61, (2, 20), generator=torch.Generator().manual_seed(6))
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    losses = []
    for _ in range(20):
        loss = model(ids, labels=ids).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert all(p.grad is not None for p in model.parameters()) and losses[-1] < 0.7 * losses[0]


def test_bad_input(llama):
    for given in ({"every": 0}, {"window": 0}, {"every": 2.5}):
        ((name, value),) = given.items()
        with pytest.raises(ValueError, match=f"scout: {name}={value}"):
            laconic.Scout(**given)
    with pytest.raises(laconic.BudgetError, match=r"scout: .*follows from its own settings"):
        laconic.Scout(keep=0.5)
    with pytest.raises(laconic.SessionError, match=r"scout is how a model is built.*create_method\('scout'\).model"):
        laconic.compress(llama, "scout")
    model, ids = scout(), torch.ones(1, 5, dtype=torch.long)
    with pytest.raises(ValueError, match="rows of 5 tokens were expected"):
        model(ids, attention_mask=torch.ones(1, 4))
    from transformers import DynamicCache

    cache = DynamicCache()
    cache.update(torch.zeros(1, 4, 2, 8), torch.zeros(1, 4, 2, 8), 0)
    with pytest.raises(ValueError, match="DynamicCache holds tokens that this model cannot use"):
        model(ids, past_key_values=cache)
