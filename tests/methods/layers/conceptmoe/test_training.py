"""ConceptMoE learns where its text cannot be predicted."""

import pytest
import torch

import laconic

SYMBOLS = 32
STEPS = 250
ENDINGS = torch.randint(1, SYMBOLS, (SYMBOLS, 3), generator=torch.Generator().manual_seed(0))


def text(seed, rows=16, tokens=64):
    """Words of four symbols, of which the first is drawn and says the others; and each symbol's place in its word."""
    drawn = torch.Generator().manual_seed(seed)
    first = torch.randint(1, SYMBOLS, (rows, tokens // 4 + 2), generator=drawn)
    words = torch.cat([first[..., None], ENDINGS[first]], -1).flatten(1)
    start = torch.randint(0, 4, (rows, 1), generator=drawn)
    at = start + torch.arange(tokens)
    return words.gather(1, at), at % 4


@pytest.mark.slow
def test_10_one_token_in_four_is_a_boundary_and_it_is_the_unpredictable_one():
    torch.manual_seed(0)
    model = laconic.ConceptMoE(ratio=4, outer=1, weight=0.3).model(
        vocab_size=SYMBOLS,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_local_experts=2,
        num_experts_per_tok=1,
        eos_token_id=None,
    )
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=3e-3)
    for step in range(STEPS):
        ids, _ = text(step)
        model(ids, labels=ids).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    ids, place = text(1_000_000, rows=64)
    with torch.no_grad():
        model.eval()(ids)
    boundary = model.told[1].view_as(ids)
    rates = [float(boundary[:, 1:][place[:, 1:] == i].float().mean()) for i in range(4)]
    assert 0.225 < float(boundary.float().mean()) < 0.275
    assert rates[0] + rates[1] > 4 * (rates[2] + rates[3])
