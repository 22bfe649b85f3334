"""Gist tokens: what follows them, after a cache of theirs alone, is what a mask over one pass would give."""

import pytest
import torch

from laconic.memory.prefix import Prefix
from laconic.memory.summary import SummaryTokens


@pytest.fixture
def network(llama):
    torch.manual_seed(1)
    made = SummaryTokens(llama)
    made.tokens.data.normal_()
    return made


def masked(model, mixed, hidden):
    """Logits of one pass over embeddings [1, T, d]; query i sees key j if ``j <= i`` and not `hidden(i, j)`."""
    n = mixed.shape[1]
    mask = torch.full((1, 1, n, n), torch.finfo(torch.float32).min)
    for i in range(n):
        for j in range(n):
            if j <= i and not hidden(i, j):
                mask[0, 0, i, j] = 0
    return model(inputs_embeds=mixed, attention_mask=mask).logits


@torch.no_grad()
@pytest.mark.parametrize("o", [0, 3])
def test_5_a_cache_of_gists_equals_the_masked_pass(llama, prompt, network, o):
    """Opening, context, gists, question: the question sees no token of the context."""
    opening, ids, question = prompt(1, 3, seed=3)[0, :o], prompt(1, 12), prompt(1, 5, seed=2)
    made = network(llama, opening, ids, 0.25)
    assert (made.entries, made.seen) == (o + 3, o + 15)
    got = llama(question, past_key_values=made.cache(llama.dtype), position_ids=made.after(5)).logits
    embed = llama.get_input_embeddings()
    mixed = torch.cat([embed(opening[None]), embed(ids), network.tokens.expand(1, 3, -1), embed(question)], 1)
    want = masked(llama, mixed, lambda i, j: i >= o + 15 and o <= j < o + 12)[:, -5:]
    torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)
    plain = llama(inputs_embeds=mixed).logits[:, -5:]
    assert (got - plain).abs().max() > 0.1
    # the positive control: with nothing hidden it is the plain model
    whole = Prefix.of(network.encoder.entries(mixed[:, : o + 15]))
    seen = llama(question, past_key_values=whole.cache(llama.dtype), position_ids=whole.after(5)).logits
    torch.testing.assert_close(seen, plain, atol=1e-4, rtol=1e-4)


def test_one_vector_stands_for_all_gists(llama, prompt, network):
    made = network(llama, prompt(1, 2)[0], prompt(1, 8), 0.5)
    llama(prompt(1, 3), past_key_values=made.cache(llama.dtype), position_ids=made.after(3)).logits.sum().backward()
    assert network.tokens.shape == (1, 32) and network.tokens.grad.abs().sum() > 0
    assert not torch.equal(made.keys[0][:, :, 2], made.keys[0][:, :, 3])  # they differ by position
    torch.testing.assert_close(made.values[0][:, :, 2], made.values[0][:, :, 3])
