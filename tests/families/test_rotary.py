"""Phases are those of the table that the model uses, at any positions, and asking for them changes nothing."""

import pytest
import torch
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
    ahead = phases(module, x, torch.arange(4)[None], reach=coming - 1)
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


@pytest.mark.parametrize("name", ["expected_attention", "treekv", "ems"])
def test_sessions_leave_dynamic_tables_alone(make_llama, name):
    """A prompt beyond the trained length, by a method that asks for other positions: the table is that of the prompt, and a
    second chunk is rotated as plain transformers rotates it."""

    def build():
        model = make_llama()
        changed = {"rope_parameters": SCALED["dynamic"], "max_position_embeddings": 32}
        fresh = type(model)(type(model.config)(**(model.config.to_dict() | changed))).eval()
        fresh.load_state_dict(model.state_dict())
        return fresh.requires_grad_(False)

    ours, plain = build(), build()
    ids = torch.randint(2, 90, (1, 80), generator=torch.Generator().manual_seed(0))
    stock = plain(ids[:, :60])
    after = plain(ids[:, 60:], past_key_values=stock.past_key_values).past_key_values.layers[0].keys[0, 0, 60:]
    with laconic.compress(ours, laconic.create_method(name, keep=0.5)) as session:
        ours(ids[:, :60])
        with session.hold():
            ours(ids[:, 60:], past_key_values=session.cache)
        part = session.cache.layers[0].parts[-1]
        torch.testing.assert_close(part.keys[0, 0, -20:], after, rtol=0, atol=1e-5)
    assert torch.equal(ours.model.rotary_emb.inv_freq, plain.model.rotary_emb.inv_freq)
