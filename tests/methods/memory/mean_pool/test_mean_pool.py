"""Mean pooling: hidden states of the frozen model, averaged and projected."""

import torch

from laconic.methods.memory.mean_pool.network import PooledStates


def network(model):
    torch.manual_seed(1)
    net = PooledStates(model, 8)
    torch.nn.init.normal_(net.projector[2].weight)
    return net


def test_slots_are_mean_embeddings_and_projected_means_of_the_last_states(llama, prompt):
    ids, net = prompt(2, 7), network(llama)
    states, embeddings = llama.model(ids).last_hidden_state, llama.get_input_embeddings()(ids)
    runs = [slice(0, 3), slice(3, 5), slice(5, 7)]  # the first of near-equal runs is the longer one
    want = [embeddings[:, run].mean(1) + net.projector(states[:, run].mean(1)) for run in runs]
    torch.testing.assert_close(net(llama, ids, 3), torch.stack(want, 1))


def test_it_begins_as_the_mean_of_the_embeddings(llama, prompt):
    ids = prompt(2, 8)
    want = llama.get_input_embeddings()(ids).reshape(2, 4, 2, -1).mean(2)
    torch.testing.assert_close(PooledStates(llama, 8)(llama, ids, 4), want)


def test_only_the_projector_is_trained(make_llama, prompt):
    model = make_llama().requires_grad_(True)
    net = network(model)
    net.contexts(model, prompt(1, 8), 0.5).sum().backward()
    assert len(list(net.parameters())) == 4 + 1 and all(p.grad is not None for p in net.parameters())
    assert all(p.grad is None for p in model.parameters())
