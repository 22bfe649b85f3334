"""Methods that repeat a prompt, where a batch row has nothing to repeat."""

import pytest
import torch
from helpers.session_tools import GREEDY

from laconic import AttentionMatching, KVzip, KVzipPlus, compress

PAD, N = 30, 50


@pytest.mark.parametrize("kind", [KVzip, KVzipPlus, AttentionMatching])
def test_a_piece_of_nothing_but_padding_is_repeated_by_the_other_row(llama, prompt, kind):
    """A row's first piece is padding alone, while the other row's is divided into chunks; both rows answer as if alone."""
    method = kind(keep=0.4, chunk=10, over="head")
    ids, mask = prompt(2, N), torch.ones(2, N, dtype=torch.long)
    mask[1, :PAD] = 0
    with compress(llama, method) as session:
        both = llama.generate(ids, attention_mask=mask, prefill_chunk_size=25, **GREEDY)
        kept = [session.kept(layer, head, row=0).tolist() for layer in range(4) for head in range(2)]
        first = llama.generate(ids[:1], prefill_chunk_size=25, **GREEDY)
        assert [session.kept(layer, head).tolist() for layer in range(4) for head in range(2)] == kept
        second = llama.generate(ids[1:, PAD:], **GREEDY)
    assert torch.equal(both[0], first[0]) and torch.equal(both[1, N:], second[0, N - PAD :])
