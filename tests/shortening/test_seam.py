"""A session is charged for the text that its prompt was made of."""

import torch
from helpers.text_tools import TEXT, scorer

import laconic
from laconic.shortening.shorten import shorten


def run(*methods):
    one = scorer()
    ids = torch.tensor([one.tokenizer.encode(methods[0].done.text if methods else TEXT, add_special_tokens=False)])
    with torch.no_grad(), laconic.compress(one.model, *methods) as session:
        assert session.stats.tokens_in == 0
        one.model(input_ids=ids)
        one.model(input_ids=ids[:, :1], past_key_values=session.cache)
        return ids.shape[1], session


def applied(**given):
    method = laconic.LLMLingua(scorer=scorer(), **given)
    return method.after(shorten(TEXT, method, tokenizer=scorer().tokenizer))


def test_figures_are_those_of_the_whole_text():
    whole, plain = run()
    read, session = run(method := applied(keep=0.25))
    done, stats = method.done, session.stats
    assert (done.tokens_in, done.tokens_out) == (whole, read) and stats.tokens_in == whole
    assert stats.kv_bytes_full == plain.stats.kv_bytes_full and stats.prefill_flops_full == plain.stats.prefill_flops_full
    assert stats.kv_bytes < 0.3 * stats.kv_bytes_full and stats.prefill_flops > done.flops > 0
    assert stats.asked == 0.25 and abs(stats.achieved - 0.25) < 0.01
    assert stats.compress_seconds >= done.seconds and stats.prefill_seconds > done.seconds


def test_shares_multiply_beside_a_method_that_evicts():
    _, session = run(applied(keep=0.5), laconic.Random(keep=0.5))
    assert session.stats.asked == 0.25 and abs(session.stats.achieved - 0.25) < 0.02


def test_the_trace_begins_with_the_text():
    read, session = run(method := applied(keep=0.5), laconic.Random(keep=0.5))
    first, second = session.trace.events[:2]
    assert (first.layer, first.method, first.before, first.after) == (-1, "llmlingua", method.done.tokens_in, read)
    assert second.method == "random" and session.trace.removed()[-1] == method.done.tokens_in - read
    assert sum(event.layer == -1 for event in session.trace.events) == 1  # not once per pass
