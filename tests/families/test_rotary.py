"""Phases are those of the table that the model uses, at any positions, and asking for them changes nothing."""

import pytest
import torch
from helpers.zoo import SCALED_ROPE, prompt, scaled
from transformers import Gemma3TextConfig, LlamaConfig
from transformers.models.gemma3.modeling_gemma3 import Gemma3RotaryEmbedding
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

import laconic
from laconic.families.rotary import phases

SHORT, LONG = [1.0 + i / 10 for i in range(4)], [4.0 + i for i in range(4)]
SCALED = {
    "default": {"rope_type": "default", "rope_theta": 10000.0},
    "dynamic": {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0, "original_max_position_embeddings": 32},
    "longrope": {
        "rope_type": "longrope", "rope_theta": 10000.0, "short_factor": SHORT, "long_factor": LONG, "factor": 4.0,
        "original_max_position_embeddings": 32,
    },
    "yarn": {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 32},
}  # fmt: skip


def rotary(kind: str) -> LlamaRotaryEmbedding:
    config = LlamaConfig(
        hidden_size=16, num_attention_heads=2, max_position_embeddings=32 if kind == "dynamic" else 128,
        rope_parameters=dict(SCALED[kind]),
    )  # fmt: skip
    return LlamaRotaryEmbedding(config)


def table(module: LlamaRotaryEmbedding) -> dict[str, object]:
    state = {name: value.clone() for name, value in module._buffers.items()}
    return state | {"cached": int(module.max_seq_len_cached), "scaling": module.attention_scaling, "kind": module.rope_type}


def same(a: dict[str, object], b: dict[str, object]) -> bool:
    return a.keys() == b.keys() and all(
        torch.equal(x, b[name]) if isinstance(x, torch.Tensor) else x == b[name] for name, x in a.items()
    )


@pytest.mark.parametrize("kind", SCALED)
@pytest.mark.parametrize("length", [20, 60])
@pytest.mark.parametrize("asked", [[[3, 9]], [[400, 5]], [[-7, 2]]])
def test_the_models_table_at_any_positions(kind, length, asked):
    """By hand: the frequencies after the pass, times positions."""
    module, x = rotary(kind), torch.zeros(1)
    cos, sin = module(x, torch.arange(length)[None])
    before = table(module)
    ours = phases(module, x, torch.tensor(asked))
    angles = torch.tensor(asked)[..., None].float() * module.inv_freq
    angles = torch.cat([angles, angles], -1)
    for got, want in zip(ours, (angles.cos(), angles.sin()), strict=True):
        torch.testing.assert_close(got, want * module.attention_scaling)
    assert same(table(module), before)
    again = phases(module, x, torch.arange(length)[None])
    assert torch.equal(again[0], cos) and torch.equal(again[1], sin)


@pytest.mark.parametrize("kind", SCALED)
@pytest.mark.parametrize(("past", "coming"), [(20, 60), (60, 20), (60, 90)])
def test_the_table_of_a_coming_pass(kind, past, coming):
    module, other, x = rotary(kind), rotary(kind), torch.zeros(1)
    for m in (module, other):
        m(x, torch.arange(past)[None])
    before = table(module)
    ahead = phases(module, x, torch.arange(4)[None], within=torch.arange(coming)[None])
    assert same(table(module), before)
    then = other(x, torch.arange(coming)[None])
    for a, b in zip(ahead, then, strict=True):
        torch.testing.assert_close(a, b[:, :4], rtol=0, atol=0)


def test_a_table_per_layer_type():
    config = Gemma3TextConfig(hidden_size=16, num_attention_heads=2, head_dim=8, num_hidden_layers=6)
    module, x, positions = Gemma3RotaryEmbedding(config), torch.zeros(1), torch.arange(5)[None]
    for kind in ("full_attention", "sliding_attention"):
        ours, theirs = phases(module, x, positions, kind), module(x, positions, kind)
        assert torch.equal(ours[0], theirs[0]) and torch.equal(ours[1], theirs[1])


def test_what_hangs_on_the_module_does_not_run():
    """A dispatcher's `forward` and hooks belong to the model's passes: the copy would pass them on to the module itself."""
    module, x, positions = rotary("dynamic"), torch.zeros(1), torch.arange(20)[None]
    want = module(x, positions)

    def refuse(*args, **kwargs):
        raise AssertionError("the module itself was called")

    module.register_forward_pre_hook(refuse)
    module.register_forward_hook(refuse)
    module.forward = refuse
    assert torch.equal(phases(module, x, positions)[0], want[0])
    assert torch.equal(phases(module, x, positions, within=positions)[1], want[1])


# -- whole sessions, against plain transformers ------------------------------------------------------------------------
ELSEWHERE = [
    "expected_attention",
    "dapq",
    "dapq:position_offset=-32",
    "kvzip",
    "treekv:positions=rank",
    "ems:merge_space=pre_rope",
]
"""Methods that ask for future, pseudo, negative or differing positions."""


def frequencies(model):
    module = model.model.rotary_emb
    return {
        name: getattr(module, name, None) for name in ("inv_freq", "max_seq_len_cached", "attention_scaling", "rope_type")
    }


@pytest.mark.parametrize("length", [60, 100])
@pytest.mark.parametrize("spec", ELSEWHERE)
@pytest.mark.parametrize("kind", SCALED_ROPE)
def test_sessions_use_the_models_own_frequencies(kind, spec, length):
    """The prompt's logits and keys are those of plain transformers; the module is, after every pass and after the session,
    as plain transformers leaves it."""
    ours, plain = scaled(kind), scaled(kind)
    ids = prompt(1, length + 12)
    stock = plain(ids[:, :length])
    with laconic.compress(ours, laconic.create_method(spec, keep=0.5)) as session:
        logits = ours(ids[:, :length]).logits
        torch.testing.assert_close(logits, stock.logits, rtol=0, atol=2e-4)
        assert same(frequencies(ours), frequencies(plain)) and session.stats.achieved < 0.6
        if spec.startswith(("expected", "dapq")):  # keys as they came, in no particular order
            own = session.cache.layers[0].parts[0].keys[0, 0].sum(0)
            came = stock.past_key_values.layers[0].keys[0, 0, session.kept(0, 0)].sum(0)
            torch.testing.assert_close(own, came, atol=1e-3, rtol=0)
        for token in ids[:, length:].split(1, 1):
            ours(token, past_key_values=session.cache)
            plain(token, past_key_values=stock.past_key_values)
            assert same(frequencies(ours), frequencies(plain))
    torch.testing.assert_close(ours(ids).logits, plain(ids).logits, rtol=0, atol=2e-4)


@pytest.mark.parametrize("spec", ELSEWHERE)
@pytest.mark.parametrize("kind", SCALED_ROPE)
def test_later_tokens_when_nothing_was_evicted(kind, spec):
    """A turn comes after a prompt at 60 of 64 positions: as in plain transformers, frequencies change with it."""
    ours, plain = scaled(kind), scaled(kind)
    ids = prompt(1, 76)
    stock = plain(ids[:, :60])
    want = plain(ids[:, 60:], past_key_values=stock.past_key_values).logits
    method = laconic.create_method(spec, tokens=100)
    with laconic.compress(ours, method) as session:
        ours(ids[:, :60])
        got = ours(ids[:, 60:], past_key_values=session.cache).logits
    torch.testing.assert_close(got, want, rtol=0, atol=2e-4)
    assert same(frequencies(ours), frequencies(plain))
