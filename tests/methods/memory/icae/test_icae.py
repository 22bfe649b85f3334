"""ICAE: memory tokens after a segment, and the embedding that says what is wanted."""

import torch

from laconic.methods.memory.icae.network import MemorySlots


def network(model):
    torch.manual_seed(1)
    return MemorySlots(model, 8, 4)


@torch.no_grad()
def test_memory_is_the_models_states_at_the_memory_tokens(llama, prompt):
    ids, net = prompt(2, 8), network(llama)
    tokens = net.table[:3].expand(2, -1, -1)
    mixed = torch.cat([llama.get_input_embeddings()(ids), tokens], 1)
    torch.testing.assert_close(net(llama, ids, 3), llama.model(inputs_embeds=mixed).last_hidden_state[:, 8:])


@torch.no_grad()
def test_7_four_times_a_segment_is_its_rows_and_what_asks_for_an_answer(llama, prompt):
    net = network(llama)
    soft = net.contexts(llama, prompt(1, 20), 0.5)
    assert soft.shape == (1, 4 + 4 + 2 + 1, 32)
    assert torch.equal(soft[0, -1:], net.closing()) and not torch.equal(net.closing(), net.restoring())
    assert net.table.shape == (4 + 2, 32)


def test_7_the_model_that_answers_stays_as_it_is(make_llama, prompt):
    model, net = make_llama(), network(make_llama())
    before = {name: x.clone() for name, x in model.state_dict().items()}
    net.contexts(model, prompt(1, 20), 0.5).sum().backward()
    assert net.table.grad is not None and net.table.grad[:4].abs().sum() > 0
    assert all(torch.equal(x, before[name]) for name, x in model.state_dict().items())
