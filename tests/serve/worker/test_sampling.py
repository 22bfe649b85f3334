"""Every row of a batch samples by its own settings: its draws follow the softmax and do not depend on its neighbours."""

import pytest
import torch

from laconic.serve.worker.sampling import RowSampler, Sampling

LOGITS = torch.tensor([1.0, 2.0, 0.0, -1.0, 0.5])


def draws(rows, logits, prompt=1, count=1, answer=()):
    sampler = RowSampler(rows, prompt)
    ids = torch.tensor([[9] * prompt + list(answer)] * len(rows))
    return torch.stack([sampler(ids, logits.expand(len(rows), -1)).argmax(-1) for _ in range(count)])


def test_without_temperature_the_likeliest_token_is_taken_and_logits_stay():
    sampler = RowSampler([Sampling(temperature=0)], 1)
    assert torch.equal(sampler(torch.tensor([[3]]), LOGITS[None]), LOGITS[None])


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_draws_follow_the_softmax(temperature):
    found = draws([Sampling(temperature=temperature, seed=4)], LOGITS, count=4000)[:, 0]
    share = torch.bincount(found, minlength=5) / len(found)
    assert torch.allclose(share, (LOGITS / temperature).softmax(-1), atol=0.03)


@pytest.mark.parametrize("top_p", [0.01, 0.5, 0.9])
def test_the_nucleus_is_the_smallest_set_with_that_probability(top_p):
    found = draws([Sampling(seed=1, top_p=top_p)], LOGITS, count=2000)[:, 0]
    ordered = LOGITS.softmax(-1).sort(descending=True)
    size = int((ordered.values.cumsum(-1) < top_p).sum()) + 1
    assert set(found.tolist()) == set(ordered.indices[:size].tolist())


def test_a_seed_draws_the_same_whoever_shares_the_batch():
    row, other = Sampling(seed=7), Sampling(seed=8, temperature=2.0)
    alone = draws([row], LOGITS, count=50)[:, 0]
    assert torch.equal(alone, draws([other, row], LOGITS, count=50)[:, 1])
    assert not torch.equal(alone, draws([Sampling(seed=9)], LOGITS, count=50)[:, 0])


def test_penalties_count_the_answer_alone():
    settings = Sampling(temperature=0, frequency_penalty=0.5, presence_penalty=0.25)
    sampler = RowSampler([settings], prompt=2)
    scores = sampler(torch.tensor([[0, 0, 1, 1, 4]]), LOGITS[None])[0]
    assert torch.allclose(LOGITS - scores, torch.tensor([0.0, 1.25, 0.0, 0.0, 0.75]))


def test_a_bias_is_added():
    scores = RowSampler([Sampling(temperature=0, logit_bias={3: 100.0, 0: -1.0})], 1)(torch.tensor([[0]]), LOGITS[None])[0]
    assert torch.allclose(scores - LOGITS, torch.tensor([-1.0, 0.0, 0.0, 100.0, 0.0]))


def test_log_probabilities_are_of_the_model_whatever_the_settings():
    sampler = RowSampler([Sampling(temperature=0.1, logit_bias={0: 50.0})], 1, keep_logprobs=True)
    sampler(torch.tensor([[0]]), LOGITS[None])
    assert torch.allclose(sampler.logprobs, LOGITS.log_softmax(-1)[None])
