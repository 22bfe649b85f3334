"""The fit of KVzap: targets against an eager attention map, and what the artifact says about itself."""

import pytest
import torch

import laconic
from laconic.fit.find import find_fit
from laconic.fit.trainer import Trainer
from laconic.methods.cache.kvzap.fit import KVzapFit


class Letters:
    """One token per character, and an instruction that is told from the text."""

    chat_template, eos_token_id = None, None

    def encode(self, text, add_special_tokens):
        return [1 + ord(letter) % 96 for letter in text]

    def decode(self, ids):
        return "".join(chr(96 + (i - 1)) if i - 1 < 32 else chr(i - 1) for i in ids)


@torch.no_grad()
def slow(model, ids, text, repeated):
    """[layers, n, Hkv]: log of the largest A ||W_O v|| / ||x|| over repeated tokens and heads, one at a time."""
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    out = model(ids, output_attentions=True, output_hidden_states=True)
    model.set_attn_implementation(before)
    d, heads, kv = model.config.head_dim, 4, 2
    found = []
    for layer, rows, residual in zip(model.model.layers, out.attentions, out.hidden_states[:-1], strict=True):
        x = layer.input_layernorm(residual[0])
        values = layer.self_attn.v_proj(x).view(-1, kv, d)
        best = torch.zeros(len(text), kv)
        for h in range(heads):
            mine = layer.self_attn.o_proj.weight[:, h * d : (h + 1) * d]
            for at, j in enumerate(text):
                moved = (mine @ values[j, h // 2]).norm()
                for t in repeated:
                    best[at, h // 2] = max(best[at, h // 2], rows[0, h, t, j] * moved / x[t].norm())
        found.append(best.log())
    return torch.stack(found), out


def test_targets_are_what_the_repetition_takes(make_llama):
    llama = make_llama()
    with torch.no_grad():
        for layer in llama.model.layers:  # as drawn, all that comes out of a norm is equally long
            layer.input_layernorm.weight.copy_(torch.linspace(0.1, 2, 32))
    fit = KVzapFit(tokens=20)
    fit.build(llama, Letters())
    found = sorted(fit.pairs(0))
    seen = []
    hook = llama.model.register_forward_pre_hook(lambda m, a, k: seen.append(k["input_ids"]), with_kwargs=True)
    list(fit.pairs(0))
    hook.remove()
    ids, n = seen[0], seen[0].shape[1]
    length = len(found[0][1])
    assert torch.equal(ids[0, :length], ids[0, n - length :]) and n > 2 * length  # the text, words between, the text
    want, out = slow(llama, ids, range(length), range(n - length, n))
    for layer, x, y in found:
        torch.testing.assert_close(y, want[layer], rtol=1e-3, atol=1e-3)
        states = llama.model.layers[layer].input_layernorm(out.hidden_states[layer])[0, :length]
        torch.testing.assert_close(x, states, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("width", [0, 4])
def test_it_writes_what_the_method_reads(llama, prompt, tmp_path, width):
    fit = KVzapFit(texts=3, checked=2, tokens=60, width=width, epochs=2, sampled=40, batch=32)
    found = Trainer(fit, llama, Letters()).run()
    assert find_fit("kvzap") is KVzapFit and found.kind == "measured"
    levels = found.data["thresholds"]
    assert len(levels) == 99 and levels == sorted(levels, reverse=True)
    assert len(found.data["r2_by_head"]) == 4 and len(found.data["r2_by_head"][0]) == 2
    found.save(tmp_path / "fit.safetensors")
    with laconic.compress(llama, laconic.KVzap(share=0.3, window=0, artifact=str(tmp_path / "fit.safetensors"))) as session:
        llama(prompt(1, 60))
    assert 0 < session.stats.achieved < 1
    # the threshold for a share leaves that share of the texts that it was read off
    with torch.no_grad():
        guesses = torch.stack([fit.surrogate(x, i) for number in (3, 4) for i, x, _ in fit.pairs(number)])
    assert float((guesses >= levels[29]).float().mean()) == pytest.approx(0.3, abs=0.01)


def test_texts_that_check_are_not_those_that_fit(llama):
    fit = KVzapFit(texts=2, checked=1, tokens=30)
    drawn = []
    fit.pairs = lambda number: drawn.append(number) or iter(KVzapFit.pairs(fit, number))
    Trainer(fit, llama, Letters()).run()
    assert drawn == [0, 1, 2]


def test_what_it_refuses():
    for name in ("texts", "checked", "tokens", "pull"):
        with pytest.raises(ValueError, match=f"{name}=0 must be positive"):
            KVzapFit(**{name: 0})
