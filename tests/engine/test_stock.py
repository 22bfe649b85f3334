"""The uncompressed model's figures are measured on its cache, and formulas."""

import pytest
import torch
from helpers.bench_tools import tiny

from laconic.engine.stock import StockSession
from laconic.session import compress


@pytest.fixture(scope="module")
def model():
    return tiny()[0]


def run(model, session, batch=1):
    """A prompt of 10 tokens, and two decoded ones."""
    with torch.no_grad(), session:
        model(torch.ones(batch, 10, dtype=torch.long), past_key_values=session.cache, use_cache=True, logits_to_keep=1)
        for _ in range(2):
            model(torch.ones(batch, 1, dtype=torch.long), past_key_values=session.cache, use_cache=True)
    return session.stats


def test_bytes_are_those_of_the_cache(model):
    stats = run(model, StockSession(model))
    assert stats.kv_bytes == stats.kv_bytes_full == stats.kv_bytes_allocated == 12 * 2 * 2 * (2 * 8) * 4
    assert (stats.tokens_in, stats.tokens_out, stats.entries, stats.layers) == (10, 2, [12.0, 12.0], [0, 1])
    assert stats.asked == stats.achieved == 1.0


@pytest.mark.parametrize("batch", [1, 3])
def test_figures_are_those_of_a_session_without_methods(model, batch):
    stock, session = run(model, StockSession(model), batch), run(model, compress(model), batch)
    for name in ("kv_bytes", "kv_bytes_full", "prefill_flops", "prefill_flops_full", "decode_flops", "tokens_in", "entries"):
        assert getattr(stock, name) == getattr(session, name), name
    assert stock.prefill_seconds > 0 and stock.decode_seconds > 0 and stock.encoder_seconds == 0


def test_a_call_without_a_cache_begins_a_new_one(model):
    once = run(model, StockSession(model))
    with torch.no_grad(), StockSession(model) as session:
        model(torch.ones(1, 30, dtype=torch.long))
        model(torch.ones(1, 10, dtype=torch.long), logits_to_keep=1)
        for _ in range(2):
            model(torch.ones(1, 1, dtype=torch.long), past_key_values=session.cache, use_cache=True)
    assert session.stats.kv_bytes == once.kv_bytes and session.stats.tokens_in == 10
    assert session.stats.prefill_flops == once.prefill_flops


def test_figures_belong_to_the_cache(model):
    """Two conversations in turn; chunks of one token are prompt, drafts are not."""
    ids = torch.randint(3, 50, (1, 20), generator=torch.Generator().manual_seed(1)).repeat(1, 2)
    options = {"max_new_tokens": 8, "do_sample": False, "return_dict_in_generate": True}
    for more in ({}, {"prefill_chunk_size": 1}, {"prompt_lookup_num_tokens": 3}):
        found = []
        for open_session in (StockSession, compress):
            with torch.no_grad(), open_session(model) as session:
                first = model.generate(ids, **options, **more).past_key_values
                figures = session.stats
                model(ids[:, :5])
                assert (session.stats.tokens_in, session.stats.tokens_out) == (5, 0)
                found.append((figures.tokens_in, figures.tokens_out, figures.decode_flops, figures.prefill_flops_full))
                if "prompt_lookup_num_tokens" in more:  # in a session, plain calls on its cache may bring further drafts
                    continue
                model(ids[:, :7], past_key_values=first)
                assert session.stats.tokens_in == 47 and session.stats.prefill_seconds > figures.prefill_seconds
                assert session.stats.tokens_out == figures.tokens_out == first.get_seq_length() - 47
        if "prompt_lookup_num_tokens" in more:  # what ran for drafts that were rejected is counted in a session alone
            found = [figures[:2] for figures in found]
        assert found[0] == found[1] and found[0][0] == 40


def test_nothing_yet(model):
    stats = StockSession(model).stats
    assert (stats.tokens_in, stats.kv_bytes, stats.prefill_flops) == (0, 0, 0)


def test_hooks_leave_with_the_session(model):
    with StockSession(model):
        assert len(model._forward_hooks) == 1
    assert not model._forward_hooks and not model._forward_pre_hooks
