"""KVzip+ against loops over a plain pass of the prompt and its repetition."""

import pytest
import torch
from accelerate import cpu_offload
from helpers.replay_by_hand import Words, repeated

import laconic
from laconic import KVzip, KVzipPlus

N = 33


class Recording(KVzipPlus):
    """Remembers what it scored."""

    def attach(self, model):
        super().attach(model)
        self.scores = {}

    def _score(self, obs):
        found = super()._score(obs)
        self.scores.setdefault(obs.layer, []).append(found.clone())
        return found


@torch.no_grad()
def slow(model, ids, asks, norm_of):
    """[layers, Hkv, n]: the largest A ||W_O^h v|| / ||x|| over later tokens and heads, one head and token at a time."""
    n, heads, kv = ids.shape[1], model.config.num_attention_heads, model.config.num_key_value_heads
    maps, streams = repeated(model, ids, asks)
    d, out = model.config.head_dim, []
    for layer, rows, residual in zip(model.model.layers, maps, streams, strict=True):
        x = layer.input_layernorm(residual)
        values = layer.self_attn.v_proj(x)[:n].view(n, kv, d)
        length = (x if norm_of == "input" else residual)[n:].norm(dim=-1)
        found = torch.zeros(kv, n)
        for h in range(heads):
            mine = layer.self_attn.o_proj.weight[:, h * d : (h + 1) * d]
            for j in range(n):
                moved = (mine @ values[j, h // (heads // kv)]).norm()
                found[h // (heads // kv), j] = max(found[h // (heads // kv), j], (rows[h, n:, j] * moved / length).max())
        out.append(found)
    return torch.stack(out)


@pytest.mark.parametrize("norm_of", ["input", "residual"])
@pytest.mark.parametrize("asks", [[], [5, 6, 7]])
def test_scores_equal_a_slow_loop(llama, prompt, norm_of, asks):
    method, ids = Recording(keep=0.4, norm_of=norm_of), prompt(1, N)
    with laconic.compress(llama, method, tokenizer=Words() if asks else None):
        llama(ids)
    got = torch.cat([method.scores[layer][0] for layer in range(4)])
    torch.testing.assert_close(got, slow(llama, ids, asks, norm_of), rtol=1e-4, atol=1e-6)


def test_it_keeps_the_best_of_all_heads_and_layers(llama, prompt):
    method, ids = Recording(keep=0.3, sinks=2), prompt(1, N)
    with laconic.compress(llama, method) as session:
        llama(ids)
    scores = torch.cat([method.scores[layer][0] for layer in range(4)])
    scores[..., :2] = torch.inf
    budget = int(0.3 * N) * 8
    kept = {(x, y, t) for x in range(4) for y in range(2) for t in session.kept(x, y).tolist()}
    ranked = sorted((-float(scores[x, y, t]), x, y, t) for x in range(4) for y in range(2) for t in range(N))
    assert kept == {place[1:] for place in ranked[:budget]}


@pytest.mark.parametrize("chunk", [1024, 9])
def test_a_short_row_scores_as_alone(llama, prompt, chunk):
    ids, mask = prompt(2, N), torch.ones(2, N, dtype=torch.long)
    ids[0, :13], mask[0, :13] = 0, 0
    both, alone = Recording(keep=0.4, chunk=chunk), Recording(keep=0.4, chunk=chunk)
    with laconic.compress(llama, both, tokenizer=Words()):
        llama(ids, attention_mask=mask)
    with laconic.compress(llama, alone, tokenizer=Words()):
        llama(ids[:1, 13:])
    for layer in range(4):
        torch.testing.assert_close(both.scores[layer][0][0, :, 13:], alone.scores[layer][0][0], rtol=1e-4, atol=1e-6)


def test_it_chooses_otherwise_than_attention_alone(llama, prompt):
    kept = []
    for cls in (KVzip, KVzipPlus):
        with laconic.compress(llama, cls(keep=0.3)) as session:
            llama(prompt(1, N))
        kept.append([session.kept(x, y).tolist() for x in range(4) for y in range(2)])
    assert kept[0] != kept[1]


def test_what_it_refuses():
    with pytest.raises(ValueError, match="choose 'input' or 'residual'"):
        KVzipPlus(norm_of="output")


def test_gradients_may_be_on(llama, prompt):
    with torch.enable_grad(), laconic.compress(llama, KVzipPlus(keep=0.5)):
        llama.get_input_embeddings().weight.requires_grad_(True)
        try:
            llama(prompt(1, 12)).logits.sum().backward()
        finally:
            llama.get_input_embeddings().weight.requires_grad_(False)
            llama.get_input_embeddings().weight.grad = None


def test_offloaded_weights_are_read_where_they_wait(make_llama, prompt):
    """`device_map` leaves meta tensors in the model; the scores are those of the model as it was loaded."""
    plain, offloaded = Recording(keep=0.4), Recording(keep=0.4)
    model, ids = make_llama(layers=2), prompt(1, N)
    with laconic.compress(model, plain):
        model(ids)
    model = cpu_offload(model, execution_device=torch.device("cpu"))
    with laconic.compress(model, offloaded):
        model(ids)
    assert all(weight.is_meta for weight in model.parameters())
    for layer, scores in plain.scores.items():
        torch.testing.assert_close(offloaded.scores[layer], scores)
