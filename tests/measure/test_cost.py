"""Formulas against the counter of a run, and against torch's own count of multiply-adds."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import MixtralConfig, MixtralForCausalLM

import laconic
from laconic.measure.cost import FlopCounter, Shape

N, STEPS = 48, 5


@pytest.fixture
def shape(llama):
    return Shape.of(llama, llama.model)


def run(model, ids, steps, *methods, chunk=None):
    """A prompt and then single tokens; the session, and the entries that each decoded token saw (itself included)."""
    seen = []
    with laconic.compress(model, *methods) as session:
        cache = None
        for piece in ids.split(chunk or ids.shape[1], 1):
            model(piece, past_key_values=cache, logits_to_keep=1)
            cache = session.cache
        for i in range(steps.shape[1]):
            seen.append([float(layer.lengths.float().mean()) + 1 for layer in cache.compressed()])
            model(steps[:, i : i + 1], past_key_values=cache)
    return session, seen


def test_sizes_are_read_from_the_model(shape):
    attention = 32 * 32 + 2 * 32 * 16 + 32 * 32  # q, k and v on two KV heads, o
    mlp = 3 * 32 * 64
    assert shape == Shape((attention + mlp,) * 4, 4, 2, 8, 97 * 32, 4)
    assert shape.layers == 4


class Packed(torch.nn.Module):
    """A quantised linear module: several numbers in one, and sizes of its own."""

    def __init__(self, linear):
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight = torch.nn.Parameter(torch.zeros(linear.weight.numel() // 2, 1, dtype=torch.uint8), requires_grad=False)


def test_quantised_weights_cost_what_they_stand_for(make_llama, shape):
    model = make_llama()
    for layer in model.model.layers:
        for name in ("gate_proj", "up_proj", "down_proj"):
            setattr(layer.mlp, name, Packed(getattr(layer.mlp, name)))
    model.lm_head = Packed(model.lm_head)
    assert Shape.of(model, model.model) == shape


def test_adapters_count_beside_what_they_adapt(make_llama, shape):
    model = make_llama()
    for layer in model.model.layers:
        adapted = torch.nn.Module()
        adapted.base_layer, adapted.in_features, adapted.out_features = layer.mlp.up_proj, 32, 64
        adapted.lora = torch.nn.ModuleList([torch.nn.Linear(32, 3, bias=False), torch.nn.Linear(3, 64, bias=False)])
        layer.mlp.up_proj = adapted
    assert Shape.of(model, model.model).weights == tuple(w + 3 * (32 + 64) for w in shape.weights)


def test_experts_count_as_weights():
    config = MixtralConfig(
        hidden_size=16, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1, vocab_size=5
    )
    config.num_local_experts = 4
    model = MixtralForCausalLM(config)
    experts = 4 * 3 * 16 * 8 + 4 * 16  # and the router
    assert Shape.of(model, model.model).weights == (16 * 16 * 2 + 16 * 8 * 2 + experts,)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(
    ("spec", "stored", "stream"),
    [
        (None, [N] * 4, [N] * 4),
        ("snapkv:keep=0.25,window=4", [12] * 4, [N] * 4),
        ("fastkv:keep=0.25,tsp_rate=0.5", [12, 12, 12, 12], [N, N, 24, 24]),
        ("pyramidkv:keep=0.5,beta=4", None, [N] * 4),
        ("adakv:keep=0.25", None, [N] * 4),
    ],
)
def test_formula_equals_counter(llama, prompt, shape, batch, spec, stored, stream):
    methods = [] if spec is None else [laconic.create_method(spec)]
    session, seen = run(llama, prompt(batch, N), prompt(batch, STEPS, seed=1), *methods)
    if stored is not None:
        assert seen[0] == [count + 1 for count in stored]
    assert session.stats.stream == dict(enumerate(stream))
    assert session.stats.prefill_flops == batch * shape.prefill_flops(stream)
    assert session.stats.decode_flops == pytest.approx(sum(batch * shape.decode_flops(entries) for entries in seen))
    assert session.stats.prefill_flops_full == batch * shape.prefill_flops([N] * 4)


def test_chunks_cost_what_the_whole_prompt_costs(llama, prompt, shape):
    session, _ = run(llama, prompt(2, N), prompt(2, 0), chunk=13)
    extra_heads = 3 * 2 * 2 * shape.head_weights  # one position of logits per chunk and row, four chunks
    assert session.stats.prefill_flops == 2 * shape.prefill_flops([N] * 4) + extra_heads
    assert session.stats.stream == dict.fromkeys(range(4), N)


def test_all_logits_are_counted(llama, prompt, shape):
    with laconic.compress(llama) as session:
        llama(prompt(1, N))
    assert session.stats.prefill_flops == shape.prefill_flops([N] * 4, logits=N)


def test_linear_parts_equal_the_count_of_torch(make_llama, prompt, shape):
    model = make_llama(implementation="eager")
    with FlopCounterMode(display=False) as counter:
        model(prompt(1, N), use_cache=False)
    counts = counter.get_flop_counts()["Global"]
    linear = 2 * N * (sum(shape.weights) + shape.head_weights)
    assert counts[torch.ops.aten.mm] == linear
    # eager attention computes the whole square, masked half included
    square = 4 * (4 * shape.head_dim * shape.heads * N * N)
    # transformers 5.16 also computes the angles of RoPE by a matrix product
    assert counts[torch.ops.aten.bmm] - square in (0, N * shape.head_dim)
    ours = shape.prefill_flops([N] * 4, logits=N)
    assert ours == linear + square * (N + 1) // (2 * N)


@pytest.mark.parametrize("rate", [0.2, 0.5])
def test_fastkv_ratios_of_the_card(make_llama, rate):
    """Linear parts ((T+1) + (L-T-1) r) / L, attention ((T+1) + (L-T-1) r^2) / L."""
    model = make_llama(layers=8)
    shape = Shape.of(model, model.model)
    no_head = Shape(shape.weights, 4, 2, 8, 0, 4)
    n, layers, selection = 1000, 8, 3
    stream = [n] * (selection + 1) + [int(n * rate)] * (layers - selection - 1)
    linear = sum(2 * w * t for w, t in zip(shape.weights, stream, strict=True))
    linear_full = 2 * n * sum(shape.weights)
    assert linear / linear_full == pytest.approx((selection + 1 + (layers - selection - 1) * rate) / layers)
    attention = no_head.prefill_flops(stream) - linear
    attention_full = no_head.prefill_flops([n] * layers) - linear_full
    want = (selection + 1 + (layers - selection - 1) * rate**2) / layers
    assert attention / attention_full == pytest.approx(want, rel=2e-3)


@pytest.mark.parametrize("spec", [None, "snapkv:keep=0.25", "fastkv:keep=0.25", "pyramidkv:keep=0.5,beta=4", "h2o:keep=0.3"])
def test_kv_bytes_formula_equals_measured_bytes(llama, prompt, shape, spec):
    methods = [] if spec is None else [laconic.create_method(spec)]
    session, _ = run(llama, prompt(2, N), prompt(2, STEPS, seed=1), *methods)
    counts = [int(layer.lengths[0, 0]) for layer in session.cache.compressed()]
    assert session.stats.kv_bytes == 2 * shape.kv_bytes(counts)
    measured = sum(part.keys.nbytes + part.values.nbytes for layer in session.cache.compressed() for part in layer.parts)
    assert session.stats.kv_bytes == measured
    assert session.stats.kv_bytes_full == 2 * shape.kv_bytes([N + STEPS] * 4)


def test_the_counter_keeps_prompt_and_decoding_apart():
    meter = FlopCounter(Shape((10, 20), heads=2, kv_heads=1, head_dim=4, head_weights=7, itemsize=4))
    meter.layer(0, batch=2, tokens=3, pairs=12, prefill=True)
    meter.layer(1, batch=2, tokens=1, pairs=5, prefill=False)
    meter.head(2, prefill=True)
    assert meter.prefill == 2 * 10 * 2 * 3 + 4 * 4 * 2 * 12 + 2 * 7 * 2
    assert meter.decode == 2 * 20 * 2 + 4 * 4 * 2 * 5
    assert meter.stream == {0: 3}
