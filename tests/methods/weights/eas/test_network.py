"""EAS's adapters; numbers are the lines of what they must show."""

import pytest
import torch

from laconic import ArtifactError, SessionError, SnapKV, UnsupportedModelError, compress
from laconic.methods.weights.eas.network import Adapter, Adapters, applied, folded

SKIP = (1, 3)
D, H, HS = 32, 6, 8


def adapters(model, skip=SKIP, seed=0, random=True):
    torch.manual_seed(seed)
    made = Adapters.of(model, skip, width=H, skip_width=HS, random=random, temperature=0.5).eval().requires_grad_(False)
    if random:
        for parameter in made.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return made


def generated(model, ids, new=5, **more):
    out = model.generate(
        input_ids=ids, max_new_tokens=new, do_sample=False, output_logits=True, return_dict_in_generate=True, **more
    )
    return torch.stack(out.logits, 1), out.past_key_values


def grouped(up, z):
    """Slow: two blocks, one after the other."""
    half, out = z.shape[-1] // 2, []
    for g in range(2):
        for o in range(up.weight.shape[1]):
            total = up.bias[g * up.weight.shape[1] + o].clone()
            for i in range(half):
                total = total + up.weight[g, o, i] * z[g * half + i]
            out.append(total)
    return torch.stack(out)


@pytest.mark.parametrize("skipped", [False, True])
def test_the_adapter_equals_a_slow_reference(skipped):
    torch.manual_seed(0)
    made = Adapter(8, 4, skipped, scale=0.7, temperature=2.0, random=True).eval().requires_grad_(False)
    for parameter in made.parameters():
        parameter.add_(torch.randn_like(parameter))
    u = torch.randn(2, 5, 8)
    mask = torch.tensor([[1, 1, 1, 1, 1], [0, 0, 1, 1, 1]])
    made.begin(mask)
    y = made(u)
    for b in range(2):
        real = [t for t in range(5) if mask[b, t]]
        mean = sum(u[b, t] for t in real) / len(real)
        w = ((made.router.weight @ mean + made.router.bias) / 2.0).softmax(0)
        message = sum(made.down.weight @ u[b, t] + made.down.bias for t in real) / len(real)
        for t in range(5):
            z = made.down.weight @ u[b, t] + made.down.bias
            if skipped:
                z = 0.5 * (message + made.own.weight @ u[b, t] + made.own.bias)
            expected = u[b, t] + 0.7 * (w[0] * grouped(made.up0, z) + w[1] * grouped(made.up1, z))
            torch.testing.assert_close(y[b, t], expected, rtol=1e-4, atol=1e-5)


def test_1_fresh_adapters_and_no_skips_change_nothing(llama, prompt):
    ids = prompt(2, 12)
    plain, _ = generated(llama, ids)
    with applied(llama, adapters(llama, (), random=False)):
        assert torch.equal(generated(llama, ids)[0], plain)
    assert torch.equal(generated(llama, ids)[0], plain)


def by_hand(model, made, ids, skip=SKIP):
    """Logits of one whole sequence, layer by layer from the equations."""
    x, n = model.model.embed_tokens(ids), ids.shape[1]
    mask, phases = torch.full((n, n), float("-inf")).triu(1)[None, None], model.model.rotary_emb(x, torch.arange(n)[None])
    for i, layer in enumerate(model.model.layers):
        u = layer.input_layernorm(x)
        if i in skip:
            x = x + layer.mlp(made.skipped[str(i)](u) * layer.post_attention_layernorm.weight)
            continue
        y = made.kept[str(i)](u)
        x = x + layer.self_attn(y, position_embeddings=phases, attention_mask=mask)[0]
        x = x + layer.mlp(layer.post_attention_layernorm(x))
    return model.lm_head(model.model.norm(x))


def test_blocks_are_those_of_the_equations(llama, prompt):
    ids, made = prompt(1, 9), adapters(llama)
    for adapter in made.each():
        adapter.begin(None)
    expected = by_hand(llama, made, ids)
    with applied(llama, made):
        torch.testing.assert_close(llama(ids).logits, expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(llama(ids).logits, expected, atol=1e-2)


def test_2_folded_layers_equal_the_adapters(llama, prompt):
    ids, made = prompt(1, 11), adapters(llama)
    with applied(llama, made):
        expected = llama(ids).logits
    with folded(llama, made):
        torch.testing.assert_close(llama(ids).logits, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("skipped", [False, True])
def test_2_one_map_equals_the_adapter(skipped):
    torch.manual_seed(0)
    made = Adapter(8, 4, skipped, scale=0.7, random=True).eval().requires_grad_(False)
    for parameter in made.parameters():
        parameter.add_(torch.randn_like(parameter))
    u = torch.randn(1, 5, 8)
    y = made(u)
    matrix, bias = made.linear()
    torch.testing.assert_close(u @ matrix.T + bias, y, rtol=1e-4, atol=1e-4)


def test_3_folding_for_another_prompt_begins_with_the_originals(llama, prompt):
    first, second, made = prompt(1, 11), prompt(1, 7, seed=1), adapters(llama)
    before = {name: x.clone() for name, x in llama.state_dict().items()}
    found = []
    for order in ((first, second), (second,)):
        for ids in order:
            with applied(llama, made):
                llama(ids)
            with folded(llama, made):
                logits = llama(second).logits
        found.append(logits)
    assert torch.equal(found[0], found[1])
    assert list(llama.state_dict()) == list(before) and all(torch.equal(x, before[n]) for n, x in llama.state_dict().items())


def test_4_a_skipped_layer_stores_nothing_and_decoding_uses_the_prompts_means(llama, prompt):
    ids, made = prompt(1, 10), adapters(llama)
    with applied(llama, made):
        logits, cache = generated(llama, ids, 4)
    tokens = logits[0].argmax(-1)
    assert [layer.get_seq_length() for layer in cache.layers] == [13, 0, 13, 0]
    whole = torch.cat([ids, tokens[None, :3]], 1)
    over = torch.zeros_like(whole)
    over[:, :10] = 1  # w and z_g of the prompt alone
    for adapter in made.each():
        adapter.begin(over)
    torch.testing.assert_close(logits[0], by_hand(llama, made, whole)[0, 9:], rtol=1e-4, atol=1e-4)
    with applied(llama, made, over=over):
        torch.testing.assert_close(llama(whole).logits[0, 9:], logits[0], rtol=1e-4, atol=1e-4)


def test_an_answer_may_be_decoded_folded(llama, prompt):
    ids, made = prompt(1, 10), adapters(llama)
    with applied(llama, made):
        expected, _ = generated(llama, ids, 4)
        out = llama(ids, use_cache=True)
    logits, cache = [out.logits[0, -1]], out.past_key_values
    with folded(llama, made):
        for _ in range(3):
            logits.append(llama(logits[-1].argmax()[None, None], past_key_values=cache).logits[0, -1])
    torch.testing.assert_close(torch.stack(logits), expected[0], rtol=1e-4, atol=1e-4)


def test_padded_rows_have_their_own_means(llama, prompt):
    made, ids = adapters(llama), prompt(2, 10)
    ids[1, :4] = 0
    mask = (ids != 0).long()
    with applied(llama, made):
        both, _ = generated(llama, ids, 3, attention_mask=mask)
        alone, _ = generated(llama, ids[1:, 4:], 3)
    torch.testing.assert_close(both[1], alone[0], rtol=1e-4, atol=1e-4)


def test_7_parameters_are_counted_by_the_formula(llama):
    made = adapters(llama)
    up = 2 * (H // 2 * D + D)
    kept = D * H + H + up + 2 * D + 2
    skipped = 2 * (D * HS + HS) + 2 * (HS // 2 * D + D) + 2 * D + 2
    assert sum(p.numel() for p in made.parameters()) == 2 * kept + 2 * skipped


def test_8_attention_disappears_and_no_token_does(make_llama, prompt):
    """4 T D^2 (here with grouped queries: 3 T D^2 multiplications) and the pairs of the skipped layers."""
    from torch.utils.flop_counter import FlopCounterMode

    ids, t, llama = prompt(1, 16), 16, make_llama(implementation="eager")

    def flops(skip):
        with applied(llama, adapters(llama, skip, random=False)), FlopCounterMode(display=False) as counter, torch.no_grad():
            logits = llama(ids).logits
        assert logits.shape[1] == t
        return counter.get_total_flops()

    kept, skipped = (2 * t * D * H * 1 + 2 * 2 * t * H // 2 * D, 2 * 2 * t * D * HS + 2 * 2 * t * HS // 2 * D)
    adapters_cost = 2 * (skipped - kept)
    attention = 2 * (2 * t * (2 * D * D + 2 * D * D // 2) + 2 * 2 * t * t * D)
    assert flops(()) - flops(SKIP) == pytest.approx(attention - adapters_cost, rel=0.01)


def test_9_only_the_message_moves_information(llama, prompt):
    """A layer without attention, token 1 changed: the others change only through z_g (and w)."""
    made, n = adapters(llama), 8
    adapter = made.skipped["1"]
    torch.nn.init.zeros_(adapter.router.weight)  # w would change too
    u = torch.randn(1, n, D)
    other = u.clone()
    other[0, 1] += 1.0

    def moved():
        out = []
        for x in (u, other):
            adapter.begin(None)
            out.append(adapter(x))
        return (out[0] - out[1])[0].abs().amax(-1) > 1e-6

    assert bool(moved().all())
    torch.nn.init.zeros_(adapter.down.weight)
    assert moved().tolist() == [t == 1 for t in range(n)]


@pytest.mark.filterwarnings("ignore:snapkv was asked")
def test_inside_a_session(llama, prompt):
    ids, made = prompt(1, 20), adapters(llama, (2, 3))
    with applied(llama, made):
        expected, _ = generated(llama, ids, 4)
        with compress(llama) as session:
            logits, _ = generated(llama, ids, 4)
        torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
        assert [layer.stored for layer in session.cache.compressed()] == [23, 23, 0, 0]
        with compress(llama, SnapKV(tokens=8, window=4)) as session:
            generated(llama, ids, 4)
        assert [layer.stored for layer in session.cache.compressed()] == [11, 11, 0, 0]
        assert session.stats.entries == [11.0, 11.0, 0.0, 0.0] and session.stats.stream == {0: 20, 1: 20}


def test_files_record_the_skipped_layers_and_the_model(llama, make_llama, prompt, tmp_path):
    made, ids = adapters(llama), prompt(1, 9)
    made.save(tmp_path / "eas.safetensors", llama)
    again = Adapters.load(tmp_path / "eas.safetensors", llama)
    assert again.skip == SKIP
    found = []
    for some in (made, again):
        with applied(llama, some):
            found.append(llama(ids).logits)
    assert torch.equal(*found)
    with pytest.raises(ArtifactError, match="another model"):
        Adapters.load(tmp_path / "eas.safetensors", make_llama(seed=5))
    (tmp_path / "broken.safetensors").write_bytes(b"x")
    with pytest.raises(ArtifactError, match="holds no adapters"):
        Adapters.load(tmp_path / "broken.safetensors", llama)


def test_what_cannot_be_done(llama, prompt):
    with pytest.raises(ValueError, match="layer 0 cannot be skipped"):
        Adapters.of(llama, (0, 1))
    with pytest.raises(ValueError, match="multiples of 2"):
        Adapter(8, 3)
    made = adapters(llama)
    with pytest.raises(SessionError, match="batch of one"), folded(llama, made):
        pass
    with applied(llama, made):
        llama(prompt(2, 5))
        with pytest.raises(UnsupportedModelError), applied(llama, made):
            pass
    with pytest.raises(SessionError, match="batch of one"), folded(llama, made):
        pass
    from transformers import GPT2Config, GPT2LMHeadModel

    with pytest.raises(UnsupportedModelError), applied(GPT2LMHeadModel(GPT2Config(n_layer=2, n_embd=8, n_head=1)), made):
        pass
