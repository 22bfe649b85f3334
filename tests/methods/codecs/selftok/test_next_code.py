"""How predictable codes are."""

import torch

from laconic.methods.codecs.selftok.next_code import next_code_perplexity


def test_rows_that_follow_a_rule_are_predictable_and_others_are_not():
    """Rows count upwards from a random start; what is asked about are rows that were held back, and rows of chance."""
    drawn = torch.Generator().manual_seed(0)
    known, held = ((torch.randint(8, (n, 1), generator=drawn) + torch.arange(6)) % 8 for n in (64, 32))
    chance, before = torch.randint(8, (32, 6), generator=drawn), torch.get_rng_state()
    rule, none = (next_code_perplexity(known, rows, 8, steps=40, width=32, batch_size=32) for rows in (held, chance))
    assert 1 < rule < 4 and none > 8
    assert torch.equal(torch.get_rng_state(), before)
