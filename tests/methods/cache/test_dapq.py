"""DapQ, line by line of its card's "must show"."""

import pytest
import torch
from helpers.reference import slow_logits, slow_top

import laconic
from laconic import UnsupportedModelError
from laconic.measure.cost import Shape
from laconic.methods.cache.dapq import DapQ
from laconic.methods.cache.snapkv import SnapKV
from laconic.tasks.text import corpus
from laconic.tasks.text.chat import prompt_ids
from laconic.tasks.text.retrieval import make

N = 6
GREEDY = {"max_new_tokens": 5, "do_sample": False, "return_dict_in_generate": True, "output_logits": True, "pad_token_id": 0}


def dapq(**given):
    return DapQ(**{"n_pseudo": N, "prefix": 2, "tokens": 10} | given)


def kept(model, ids, method, mask=None):
    """Token numbers that stay, [layer][head] for batch row 0."""
    with torch.inference_mode(), laconic.compress(model, method) as session:
        model(ids, attention_mask=mask)
        heads = model.config.num_key_value_heads
        return [session.kept(layer, head).tolist() for layer in session.cache.layer_ids for head in range(heads)]


def recall(found, gold):
    """Share of the gold entries found, mean over layers and heads."""
    return sum(len(set(a) & set(b)) / len(b) for a, b in zip(found, gold, strict=True)) / len(gold)


def jaccard(one, other):
    return sum(len(set(a) & set(b)) / len(set(a) | set(b)) for a, b in zip(one, other, strict=True)) / len(one)


# line 1
@pytest.mark.parametrize("tokens", [40, 80])
def test_a_budget_that_holds_the_prompt_changes_nothing(llama, prompt, tokens):
    ids = prompt(2, 40)
    want = llama.generate(ids, **GREEDY)
    with laconic.compress(llama, dapq(tokens=tokens)) as session:
        got = llama.generate(ids, **GREEDY)
    assert torch.equal(got.sequences, want.sequences)
    torch.testing.assert_close(torch.stack(got.logits), torch.stack(want.logits), atol=1e-5, rtol=1e-5)
    assert session.stats.entries == [44] * 4


@pytest.mark.parametrize("tokens", [1, 10, 39])
def test_the_first_token_does_not_depend_on_the_budget(llama, prompt, tokens):
    ids = prompt(2, 40)
    want = llama(ids).logits
    with laconic.compress(llama, dapq(tokens=tokens)):
        torch.testing.assert_close(llama(ids).logits, want, atol=1e-5, rtol=1e-5)


# line 2
@pytest.mark.parametrize("tokens", [10, 60])
def test_nothing_of_the_pseudo_tokens_stays(llama, prompt, tokens):
    positions = []
    hook = llama.model.rotary_emb.register_forward_pre_hook(
        lambda m, a, k: positions.append((k.get("position_ids") if "position_ids" in k else a[1])[0].tolist()),
        with_kwargs=True,
    )
    try:
        with laconic.compress(llama, dapq(tokens=tokens)) as session:
            llama.generate(prompt(1, 40), **GREEDY | {"max_new_tokens": 2})
    finally:
        hook.remove()
    assert positions == [list(range(40 + N)), [40]]
    assert session.cache.seen == 41
    for layer in session.cache.compressed():
        assert layer.stored == min(tokens, 40) + 1 and max(layer.kept(0, 0).tolist()) == 40


# line 3
@pytest.mark.parametrize("reduction", ["mean", "max"])
def test_kept_entries_equal_a_slow_reference(make_llama, prompt, passes, reduction):
    model = make_llama(heads=4, kv_heads=2)
    ids = prompt(2, 33)
    with laconic.compress(model, dapq(tokens=11, reduction=reduction)) as session:
        model(ids)
    for layer in range(4):
        queries, keys = passes[layer][0]
        rows = slow_logits(queries[:, :, 33:], keys, queries.shape[-1] ** -0.5, past=33).softmax(-1)
        for row in range(2):
            for head in range(2):
                votes = [[sum(float(rows[row, 2 * head + g, i, j]) for i in range(N)) for g in range(2)] for j in range(33)]
                score = [max(v) if reduction == "max" else sum(v) / 2 for v in votes]
                assert session.kept(layer, head, row).tolist() == slow_top(score, 11)


# line 4
def test_the_true_continuation_finds_exactly_what_it_reads(llama, prompt, passes):
    ids = prompt(1, 30)
    answer = llama.generate(ids, **GREEDY | {"max_new_tokens": N}).sequences[0, 30:]
    found = kept(llama, ids, dapq(tokens=9, content="fixed", fixed_ids=tuple(answer.tolist())))
    passes.clear()
    with laconic.compress(llama):
        llama(torch.cat([ids, answer[None]], 1))
    for layer in range(4):
        queries, keys = passes[layer][0]
        rows = slow_logits(queries[:, :, 30:], keys, queries.shape[-1] ** -0.5, past=30).softmax(-1)[0, :, :, :30].sum(1)
        for head in range(2):
            assert found[2 * layer + head] == slow_top(rows[2 * head : 2 * head + 2].mean(0).tolist(), 9)


# lines 5, 6, 7 and 9: on a trained model, N = 16
@pytest.fixture(scope="module")
def trained():
    """testbed/lm; four task prompts and two windows of prose of about 500 tokens; what follows each of them greedily."""
    model, tokenizer = laconic.load("testbed/lm")
    tasks = [("multikey", 500), ("multikey", 501), ("multiquery", 500), ("multiquery", 501)]
    prompts = [[i for part in prompt_ids(make(task, seed, 512, tokenizer), tokenizer) for i in part] for task, seed in tasks]
    lines = corpus.lines("prose")
    for start in (100, 900):
        text = tokenizer("\n".join(lines[start : start + 60]), add_special_tokens=False)["input_ids"]
        prompts.append([tokenizer.bos_token_id, *text[:500]])
    out = []
    for ids in prompts:
        given = torch.tensor([ids])
        with torch.inference_mode():
            more = model.generate(given, max_new_tokens=16, min_new_tokens=16, do_sample=False, pad_token_id=0)
        out.append((given, tuple(more[0, len(ids) :].tolist())))
    return model, out


def mean(trained, measure, tokens):
    """Mean of measure(run, answer ids, prompt length); run(**settings) is what DapQ keeps."""
    model, texts = trained
    found = []
    for ids, answer in texts:

        def run(ids=ids, **given):
            return kept(model, ids, DapQ(**{"tokens": tokens, "n_pseudo": 16} | given))

        found.append(measure(run, answer, ids))
    return sum(found) / len(found)


def gold(run, answer):
    return run(content="fixed", fixed_ids=answer)


@pytest.mark.parametrize("tokens", [16, 64])
def test_position_counts_for_more_than_content(trained, tokens):
    """Random content at the right positions, against the true answer in the middle of the prompt. (The true answer on the
    last N positions of the prompt is not worse than random content: see docs/systems/dapq.md.)"""
    right = mean(trained, lambda run, a, ids: recall(run(content="random_span"), gold(run, a)), tokens)
    wrong = mean(
        trained,
        lambda run, a, ids: recall(run(content="fixed", fixed_ids=a, position_offset=-(ids.shape[1] // 2)), gold(run, a)),
        tokens,
    )
    assert right > wrong + 0.1


@pytest.mark.parametrize("tokens", [16, 64])
def test_it_foresees_more_than_snapkv(trained, tokens):
    model = trained[0]
    ours = mean(trained, lambda run, a, ids: recall(run(), gold(run, a)), tokens)
    snap = mean(
        trained, lambda run, a, ids: recall(kept(model, ids, SnapKV(tokens=tokens, window=16)), gold(run, a)), tokens
    )
    assert ours >= snap


def test_on_the_last_tokens_of_the_prompt_it_nears_snapkv(trained):
    model = trained[0]
    like = {"prefix": 0, "position_offset": -16, "pool_kernel": 5, "keep_window": 16}

    def likeness(run, ids, **given):
        return jaccard(run(**given), kept(model, ids, SnapKV(tokens=64, window=16)))

    near = mean(trained, lambda run, a, ids: likeness(run, ids, **like), 64)
    default = mean(trained, lambda run, a, ids: likeness(run, ids), 64)
    assert near > 0.8 and near > default


def test_content_changes_less_than_position(trained):
    def contents(run, a, ids):
        return jaccard(run(content="random_span", seed=1), run(content="random_span", seed=2))

    def positions(run, a, ids):
        moved = run(content="random_span", seed=1, position_offset=-(ids.shape[1] // 2))
        return jaccard(run(content="random_span", seed=1), moved)

    assert mean(trained, contents, 64) > mean(trained, positions, 64)


# line 8
def test_costs_are_the_pseudo_tokens_and_nothing_stays(llama, prompt):
    ids = prompt(2, 40)
    figures = []
    for method in (dapq(), SnapKV(tokens=10, window=N)):
        with laconic.compress(llama, method) as session:
            llama(ids)
        figures.append(session.stats)
    shape = Shape.of(llama, llama.model)
    assert figures[0].prefill_flops == 2 * shape.prefill_flops([40 + N] * 4, logits=40)
    assert figures[1].prefill_flops == 2 * shape.prefill_flops([40] * 4, logits=40)
    assert figures[0].kv_bytes == figures[1].kv_bytes


# options, batches, refusals
def ids_of(method, n, pad=0):
    prompt = torch.tensor([[0] * pad + list(range(100, 100 + n))])
    return method.pseudo(prompt, prompt > 0)[0].tolist()


def test_contents():
    assert ids_of(dapq(), 20) == [100, 101, 116, 117, 118, 119]
    assert ids_of(dapq(prefix=0), 20, pad=4) == [114, 115, 116, 117, 118, 119]
    assert ids_of(dapq(), 3) == [100, 101, 102, 100, 101, 102]  # a short prompt starts over
    assert ids_of(dapq(content="fixed", fixed_ids=(7, 8, 9, 5)), 20) == [7, 8, 9, 5, 7, 8]
    single = ids_of(dapq(content="random_single", seed=3), 20)
    assert len(set(single)) == 1 and single == ids_of(dapq(content="random_single", seed=3), 20, pad=9)
    span = ids_of(dapq(content="random_span", seed=3), 20)
    assert span == list(range(span[0], span[0] + N)) and 100 <= span[0] <= 114
    assert len({tuple(ids_of(dapq(content="random_span", seed=s), 20)) for s in range(5)}) > 1


def test_fixed_ids_are_embedded_beside_embeddings(llama, prompt):
    ids = prompt(1, 30)
    method = dapq(content="fixed", fixed_ids=(5, 6, 7))
    with laconic.compress(llama, method) as session:
        llama(ids)
        want = [session.kept(layer).tolist() for layer in range(4)]
    with laconic.compress(llama, method) as session:
        llama(inputs_embeds=llama.get_input_embeddings()(ids))
        assert [session.kept(layer).tolist() for layer in range(4)] == want


@pytest.mark.parametrize("given", [{}, {"content": "random_span"}, {"pool_kernel": 3, "keep_window": 4}])
def test_padding_changes_nothing(llama, prompt, given):
    ids = prompt(1, 30)
    padded = torch.cat([torch.zeros(1, 13, dtype=torch.long), ids], 1)
    both = torch.cat([padded, prompt(1, 43, seed=1)])
    mask = (both > 0).long()
    alone = kept(llama, ids, dapq(**given))
    assert [[i - 13 for i in head] for head in kept(llama, both, dapq(**given), mask)] == alone


def test_a_chunk_that_is_all_padding(llama, prompt):
    ids, mask = prompt(2, 48), torch.ones(2, 48, dtype=torch.long)
    ids[0, :30], mask[0, :30] = 0, 0
    with laconic.compress(llama, dapq()) as session:
        llama.generate(ids, attention_mask=mask, prefill_chunk_size=16, **GREEDY)
        counts = [layer.lengths.tolist() for layer in session.cache.compressed()]
    assert counts == [[[14, 14], [14, 14]]] * 4


def test_a_window_and_pooling_on_request(llama, prompt):
    ids = prompt(1, 40)
    assert all(head[-4:] == [36, 37, 38, 39] for head in kept(llama, ids, dapq(keep_window=4)))
    assert kept(llama, ids, dapq(pool_kernel=5)) != kept(llama, ids, dapq())


def test_models_with_other_layers_are_refused():
    from helpers.zoo import MIXED, Tiny

    model = Tiny("Gemma2", {"layer_types": MIXED, "sliding_window": 16, "query_pre_attn_scalar": 16}).build()
    with pytest.raises(UnsupportedModelError, match=r"not full attention.*would store the pseudo tokens"):
        laconic.compress(model, dapq())


def test_layers_without_positions_are_warned_of(make_llama):
    model = make_llama(layers=2)
    model.config.no_rope_layers = [1, 0]
    with pytest.warns(UserWarning, match="no rotary positions"):
        laconic.compress(model, dapq())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"n_pseudo": 0}, "n_pseudo=0"),
        ({"prefix": 7}, "prefix=7 is more than n_pseudo=6"),
        ({"pool_kernel": 4}, "pool_kernel=4 must be odd"),
        ({"content": "words"}, "choose one of prefix_suffix"),
        ({"content": "fixed"}, "go together"),
        ({"fixed_ids": (1,)}, "go together"),
        ({"fixed_ids": 1}, "must be a tuple"),
        ({"reduction": "sum"}, "choose 'mean' or 'max'"),
    ],
)
def test_parameters_that_make_no_sense(given, message):
    with pytest.raises(ValueError, match=message):
        dapq(**given)
