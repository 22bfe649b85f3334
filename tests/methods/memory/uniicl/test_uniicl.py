"""UniICL: what is trained, demonstrations alone, and what pulls helpful ones towards a question, beside slow references."""

import math

import pytest
import torch
from helpers.memory_tools import one_by_one

from laconic.fit.slots import Reading
from laconic.measure.cost import Shape
from laconic.memory.compressor import embedded, slots_of
from laconic.methods.memory.uniicl.fit import UniICLFit, contrastive, first_question, usefulness
from laconic.methods.memory.uniicl.network import VirtualTokens


@pytest.fixture
def network(llama):
    torch.manual_seed(1)
    net = VirtualTokens(llama, 8)
    with torch.no_grad():
        net.linear.weight.add_(0.1 * torch.randn(32, 32))
        net.gain.fill_(0.5)
    return net


@torch.no_grad()
def test_soft_tokens_are_the_models_states_at_the_slots_through_the_layer(llama, prompt, network):
    ids = prompt(2, 7)
    whole = torch.cat([llama.get_input_embeddings()(ids), network.slot.expand(2, 3, 32)], 1)
    want = llama.model(inputs_embeds=whole).last_hidden_state[:, 7:] @ network.linear.weight.T
    torch.testing.assert_close(network(llama, ids, 3), want)


def test_1_only_the_slot_and_the_layer_are_trained(make_llama, prompt):
    model = make_llama().requires_grad_(False)
    net = VirtualTokens(model, 8)
    trained = [p for p in net.parameters() if p.requires_grad]
    assert sum(p.numel() for p in trained) == 32 * 32 + 32
    net.contexts(model, prompt(1, 8), 0.5).square().sum().backward()
    assert all(p.grad is not None and float(p.grad.abs().sum()) > 0 for p in trained)  # through the frozen model
    assert net.gain.grad is None and all(p.grad is None for p in model.parameters())


@torch.no_grad()
@pytest.mark.parametrize("keep", [1 / 2, 1 / 3, 1 / 12])
def test_2_slots_are_the_share_rounded_up_and_company_changes_nothing(llama, prompt, network, keep):
    assert [slots_of(n, keep) for n in range(1, 49)] == [-(-n // round(1 / keep)) for n in range(1, 49)]
    ids = prompt(3, 8)
    together = network(llama, ids, slots_of(8, keep))
    for row, alone in zip(together, ids, strict=True):
        torch.testing.assert_close(network(llama, alone[None], slots_of(8, keep))[0], row, atol=1e-6, rtol=1e-5)


@torch.no_grad()
def test_6_two_windows_are_compressed_separately_and_concatenated(llama, prompt, network):
    ids = prompt(1, 21)
    torch.testing.assert_close(network.contexts(llama, ids, 0.5), one_by_one(network, llama, ids, 0.5), atol=1e-6, rtol=1e-5)


def reading(prompt, rows=3):
    rest = prompt(rows, 7, seed=4)
    learned = torch.zeros(rows, 7, dtype=torch.bool)
    learned[:, [2, 5]] = True
    return Reading(torch.tensor([1]), prompt(rows, 8, seed=3), rest, learned)


@torch.no_grad()
def test_7_what_helps_most_is_found_as_by_one_pass_for_each(llama, prompt):
    given = first_question(reading(prompt))
    assert given.rest.shape == (3, 4) and given.learned.sum() == 3
    candidates = torch.randn(3, 4, 2, 32)
    found = usefulness(llama, given, candidates)
    for b in range(3):

        def surprise(soft, b=b):
            parts = [given.opening, given.rest[b, :2]]
            before, after = (embedded(llama, part[None]) for part in parts)
            logits = llama(inputs_embeds=torch.cat([before, soft[None], after], 1)).logits[0, -1]
            return -float(logits.log_softmax(-1)[given.rest[b, 2]])

        want = [surprise(candidates[b, 0, :0]) - surprise(candidates[b, i]) for i in range(4)]
        torch.testing.assert_close(found[b], torch.tensor(want), atol=1e-5, rtol=1e-4)


def test_7_the_loss_is_the_published_one_and_falls_when_the_helpful_one_comes_nearer():
    torch.manual_seed(0)
    question, means = torch.randn(2, 5), torch.randn(2, 3, 5)
    best, worst = torch.tensor([2, 0]), torch.tensor([1, 2])
    total = 0.0
    for b in range(2):
        cos = [float(question[b] @ m / question[b].norm() / m.norm()) for m in means[b]]
        plus, minus = math.exp(cos[best[b]]), math.exp(cos[worst[b]])
        total -= math.log(plus / (plus + minus)) / 2
    assert float(contrastive(question, means, best, worst)) == pytest.approx(total, rel=1e-5)
    nearer = means.clone()
    nearer[0, 2], nearer[1, 0] = question
    assert contrastive(question, nearer, best, worst) < contrastive(question, means, best, worst)


def test_cost_is_one_pass_over_text_and_slots_and_the_layer(llama, network):
    shape = Shape.of(llama, llama.model)
    want = shape.prefill_flops([8 + 4] * shape.layers, logits=0) + 4 * 2 * 32 * 32
    assert network.flops(shape, 8, 4) == want and network.context_flops(shape, 80, 0.5) == 10 * want


@pytest.fixture(scope="module")
def facts():
    import laconic

    return laconic.load("testbed/facts")


def test_8_the_last_steps_train_the_selection_too(facts):
    fit = UniICLFit(steps=8, batch_size=4, contrast=0.5, keeps=(0.5,))
    module = fit.build(*facts)
    for step, selecting in ((3, False), (4, True)):
        batch = fit.batch(step)
        assert fit.selecting is selecting
        whole = fit.loss(batch)
        assert fit.progress().startswith("right ") and torch.isfinite(whole)
        alone = fit.answer_loss(batch[0], module.contexts(fit.model, batch[0].context, batch[1]))
        assert (float((whole - alone).detach()) > 0.1) is selecting  # log 2 where nothing is learned yet


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"contrast": 1.5}, "contrast=1.5 is a share of the steps"),
        ({"lengths": (16, 10)}, "lengths=10 must be two or more demonstrations of segment=4"),
        ({"lengths": (4,)}, "lengths=4 must be two or more"),
    ],
)
def test_bad_settings(settings, match):
    with pytest.raises(ValueError, match=f"uniicl: {match}"):
        UniICLFit(**settings)
