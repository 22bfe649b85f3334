"""xRAG: one slot a document, whatever its length; the projector alone learns."""

import pytest
import torch

from laconic.methods.memory.xrag.fit import XRAGFit, divergence
from laconic.methods.memory.xrag.network import ProjectedEmbedding


@pytest.fixture
def network(llama):
    torch.manual_seed(1)
    return ProjectedEmbedding(llama, 4, 64)


@torch.no_grad()
def test_9_every_document_has_exactly_one_slot(llama, prompt, network):
    ids = prompt(2, 10)
    soft = network.contexts(llama, ids, 0.25)
    assert soft.shape == (2, 3, 32)  # documents of 4, 4 and 2 tokens
    for at, piece in enumerate(ids.split(4, 1)):
        torch.testing.assert_close(soft[:, at], network(llama, piece, 1)[:, 0])


@torch.no_grad()
def test_the_retriever_is_a_random_map_of_the_mean_embedding(llama, prompt, network):
    ids = prompt(1, 4)
    states = llama.get_input_embeddings()(ids[0])
    mean = sum(states) / 4 * 2 / (sum(row.norm() for row in states) / 4)
    want = torch.stack([torch.cos(mean @ network.features[:, k] + network.phase[k]) for k in range(64)])
    torch.testing.assert_close(network.embedding(llama, ids)[0], want, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(network.embedding(llama, ids.flip(1))[0], want, atol=1e-5, rtol=1e-5)
    assert (network.embedding(llama, prompt(1, 4, seed=9))[0] - want).abs().max() > 0.5


def test_9_only_the_projector_gets_gradients(llama, prompt, network):
    llama(inputs_embeds=network.contexts(llama, prompt(1, 8), 0.25)).logits.sum().backward()
    learned = {name for name, p in network.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert learned - {"gain"} == {f"projector.{i}.{kind}" for i in (0, 2) for kind in ("weight", "bias")}
    assert {"features", "phase"} <= set(network.state_dict()) and all(p.grad is None for p in llama.parameters())


def test_9_the_divergence_is_zero_for_equal_inputs_and_follows_its_sum():
    teacher, student = torch.randn(5, 7, generator=torch.Generator().manual_seed(0)), torch.zeros(5, 7)
    assert float(divergence(teacher, teacher)) == pytest.approx(0, abs=1e-7)
    total = 0.0
    for row in teacher:
        p = row.exp() / row.exp().sum()
        total += float(sum(x * (x.log() - torch.tensor(1 / 7).log()) for x in p)) / 5
    assert float(divergence(teacher, student)) == pytest.approx(total, rel=1e-5)


def test_shares_that_are_not_one_in_a_document_are_refused():
    with pytest.raises(ValueError, match=r"segment=4 tokens becomes one; give 1/segment"):
        XRAGFit(keeps=(0.5,))
    with pytest.raises(ValueError, match="becomes one"):
        XRAGFit(keeps=(0.25, 0.5))
    assert XRAGFit(keeps=(0.125,), segment=8).keeps == (0.125,)
