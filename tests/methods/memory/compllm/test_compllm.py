"""CompLLM: concept embeddings of independent segments, and the distillation loss, beside slow references."""

import pytest
import torch
from helpers.memory_tools import one_by_one

from laconic.fit.slots import Reading
from laconic.memory.compressor import embedded
from laconic.methods.memory.compllm.fit import distillation, layer_distances
from laconic.methods.memory.compllm.network import ConceptEmbeddings


@pytest.fixture
def network(llama):
    torch.manual_seed(1)
    return ConceptEmbeddings(llama, 8, 5)


@torch.no_grad()
def test_at_the_start_they_are_the_models_states_at_appended_markers(llama, prompt, network):
    ids = prompt(2, 7)
    whole = torch.cat([ids, torch.full((2, 4), 5)], 1)
    torch.testing.assert_close(network(llama, ids, 4), llama.model(whole).last_hidden_state[:, 7:])


@torch.no_grad()
def test_1_segments_are_independent(llama, prompt, network):
    ids = prompt(1, 32)
    edited = ids.clone()
    edited[0, 17] = (edited[0, 17] + 1) % 90 + 1
    one, two = (network.contexts(llama, x, 0.5)[0] for x in (ids, edited))
    changed = (one - two).abs().amax(-1) > 1e-6
    assert changed[8:12].all() and changed.sum() == 4
    alone = network.contexts(llama, ids[:, 16:24], 0.5)[0]
    torch.testing.assert_close(one[8:12], alone, atol=1e-6, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("tokens", [3, 8, 21])
def test_2_together_equals_one_segment_at_a_time(llama, prompt, network, tokens):
    ids = prompt(1, tokens)
    want = one_by_one(network, llama, ids, 0.5)
    torch.testing.assert_close(network.contexts(llama, ids, 0.5), want, atol=1e-5, rtol=1e-5)
    assert want.shape[1] == sum(-(-min(8, tokens - start) // 2) for start in range(0, tokens, 8))


def reading(prompt):
    rest = prompt(2, 6, seed=4)
    learned = torch.tensor([[0, 1, 0, 1, 1, 0], [0, 0, 1, 1, 0, 1]], dtype=torch.bool)
    return Reading(torch.tensor([1]), prompt(2, 8, seed=3), rest, learned)


def test_4_distillation_of_the_context_itself_is_zero(llama, prompt):
    given = reading(prompt)
    assert float(distillation(llama, given, embedded(llama, given.context))) == pytest.approx(0, abs=1e-6)
    assert float(distillation(llama, given, embedded(llama, given.context)[:, ::2])) > 0.01


def test_4_the_loss_equals_a_loop():
    torch.manual_seed(2)
    teacher, student = ([torch.randn(2, 6, 3) * (layer + 1) for layer in range(3)] for _ in range(2))
    at = reading(lambda b, n, seed: torch.zeros(b, n, dtype=torch.long)).learned
    total = 0.0
    for wanted, got in zip(teacher, student, strict=True):
        for b in range(2):
            rows = [t for t in range(6) if at[b, t]]
            numbers = [float(wanted[b, t, j]) for t in rows for j in range(3)]
            mean = sum(numbers) / len(numbers)
            sigma = (sum((x - mean) ** 2 for x in numbers) / len(numbers)) ** 0.5
            apart = [abs(float(got[b, t, j] - wanted[b, t, j])) for t in rows for j in range(3)]
            smooth = [0.5 * x * x if x < 1 else x - 0.5 for x in apart]
            total += sum(smooth) / len(smooth) / sigma / 2
    assert float(layer_distances(teacher, student, at)) == pytest.approx(total, rel=1e-5)


def test_7_gradients_reach_encoder_and_linear_layer_only(make_llama, prompt, network):
    model, given = make_llama(), reading(prompt)
    distillation(model, given, network.contexts(model, given.context, 0.5)).backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in network.parameters())
    assert all(p.grad is None for p in model.parameters())


def test_6_cost_grows_with_the_number_of_segments(llama, network):
    from laconic.measure.cost import Shape

    shape = Shape.of(llama, llama.model)
    assert network.context_flops(shape, 800, 0.5) == 100 * network.context_flops(shape, 8, 0.5)
