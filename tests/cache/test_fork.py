"""Forks of a cache: one context, many questions, nothing copied, nothing disturbed."""

from contextlib import nullcontext

import pytest
import torch
from helpers.live import addresses, live
from helpers.method_tools import METHODS, STORAGE, method
from helpers.zoo import ALL
from helpers.zoo import prompt as zoo_prompt

import laconic
from laconic.cache.fork import held, stock_fork
from laconic.errors import SessionError

N = 80
every_method = pytest.mark.parametrize("name", METHODS)


def padded(prompt, seed=0, n=N, pad=23):
    """ids and mask of two sequences; the first is padded on the left."""
    ids, mask = prompt(2, n, seed=seed), torch.ones(2, n, dtype=torch.long)
    ids[0, :pad], mask[0, :pad] = 0, 0
    return ids, mask


def ask(session, cache, question, steps, hold=True):
    """Logits of a question asked of a cache, and of tokens decoded one by one after it, [B, n, V]."""
    out = []
    with session.hold() if hold else nullcontext():
        for ids in (question, *steps.split(1, 1)):
            out.append(session.model(ids, past_key_values=cache).logits)
    return torch.cat(out, 1)


def tensors(cache):
    """Copies of everything that a cache stores."""
    found = {}
    for layer in cache.compressed():
        found |= {(layer.number, name): x.clone() for name, x in layer.state.items()}
        for i, part in enumerate(layer.parts):
            found |= {(layer.number, i, part.kind, name): x.clone() for name, x in part.tensors().items()}
    return found


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@every_method
@pytest.mark.parametrize(
    ("hold", "batch"),
    [
        pytest.param(True, "padded", id="held-padded"),
        pytest.param(False, "one", id="not held-one"),
        pytest.param(True, "one", id="held-one", marks=pytest.mark.slow),
        pytest.param(False, "padded", id="not held-padded", marks=pytest.mark.slow),
    ],
)
def test_every_fork_is_asked_as_if_the_context_had_just_been_read(llama, prompt, name, hold, batch):
    ids, mask = padded(prompt) if batch == "padded" else (prompt(1, N), None)
    question, steps = prompt(len(ids), 9, seed=2), prompt(len(ids), 5, seed=3)

    def read(session):
        llama(ids, attention_mask=mask)
        return session.cache

    with laconic.compress(llama, method(name, keep=0.4)) as session:
        want = ask(session, read(session).fork(), question, steps, hold)
        context = read(session)
        forks = [context.fork() for _ in range(3)]
        before = tensors(context)
        for seed, other in enumerate(forks[:2]):
            ask(session, other, prompt(len(ids), 30, seed=10 + seed), prompt(len(ids), 4, seed=20 + seed), not hold)
        got = ask(session, forks[2], question, steps, hold)
        assert torch.equal(got, want)
        assert same(tensors(context), before)
        assert context.seen == N and context.real == ([N - 23, N] if batch == "padded" else [N])
        # the context itself can go on, too, and by the same numbers
        assert torch.equal(ask(session, context, question, steps, hold), want)


@every_method
def test_a_fork_continues_what_would_have_continued_anyway(llama, prompt, name):
    """Beside a cache that was never forked: the question bit for bit, what is decoded then up to rounding; a quantiser packs
    other groups of what is new, so there only the question is compared."""
    ids, question, steps = prompt(1, N), prompt(1, 9, seed=2), prompt(1, 6, seed=3)
    with laconic.compress(llama, method(name, keep=0.4)) as session:
        llama(ids)
        got = ask(session, session.cache.fork(), question, steps)
        llama(ids)
        session.cache.settle()
        want = ask(session, session.cache, question, steps)
    assert torch.equal(got[:, :9], want[:, :9])
    if name not in STORAGE:
        torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["h2o", "tova", "streaming_llm", "treekv", "ems", "lococo", "zipvl", "razorattention"])
def test_a_fork_evicts_while_decoding_as_ever(llama, prompt, name):
    specs = {
        "zipvl": "zipvl:short=0,refresh=4",
        "razorattention": "razorattention:heads=no,fold_on_decode=true,fold_every=4",
        "treekv": "treekv:positions=rank",
    }
    chosen = laconic.create_method(specs[name], keep=0.3) if name in specs else method(name, keep=0.3)
    ids, steps = prompt(1, N), prompt(1, 40, seed=3)

    def run(session, cache):
        logits = torch.cat([llama(x, past_key_values=cache).logits for x in steps.split(1, 1)], 1)
        return logits, [cache.kept(layer, head).tolist() for layer in range(4) for head in range(2)]

    with laconic.compress(llama, chosen) as session:
        llama(ids)
        want, kept = run(session, session.cache)
        llama(ids)
        context = session.cache
        fork = context.fork()
        with session.hold():
            llama(prompt(1, 11, seed=7), past_key_values=context.fork())
        before = tensors(context)
        got, again = run(session, fork)
        assert same(tensors(context), before)
    assert kept == again
    torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)


@every_method
def test_ten_forks_take_the_memory_of_one_context_and_their_questions(make_llama, prompt, name):
    model = make_llama(layers=4)
    n, question = 600, prompt(1, 12, seed=1)
    with laconic.compress(model, method(name, keep=0.5)) as session:
        model(prompt(1, n))
        context = session.cache
        context.settle()
        alone = held([context])
        forks = [context.fork() for _ in range(10)]
        for fork in forks:
            with session.hold():
                model(question, past_key_values=fork)
                model(question[:, :1], past_key_values=fork)
        together = held([context, *forks])
    state = sum(x.nbytes for layer in context.compressed() for x in layer.state.values())
    room = 13 + 32  # a part begins with 32 spare entries
    per_entry = 4 * 2 * (2 * 8 * 4 + 4 * 8)  # layers, KV heads, key and value, at most eight columns
    # what methods remember is small, and a fork has it twice: its own, and the one that it goes back to
    assert together <= alone + 10 * (2 * state + room * per_entry)
    assert together > alone + 10 * 13 * 4 * 2 * 2 * 8


def test_held_counts_what_is_shared_once(llama, prompt):
    with laconic.compress(llama) as session:
        llama(prompt(1, N))
        fork = session.cache.fork()
        assert held([session.cache]) == session.cache.allocated == held([session.cache, fork, fork.fork()])


def test_what_a_fork_goes_back_to_is_counted(llama, prompt):
    """Once it has evicted, it holds entries of its own beside those of the context."""
    with laconic.compress(llama, method("h2o", keep=0.5)) as session:
        llama(prompt(1, N))
        fork, besides = session.cache.fork(), addresses(llama)
        before = fork.allocated
        for token in prompt(1, 3, seed=1).split(1, 1):
            llama(token, past_key_values=fork)
    assert fork.allocated == sum(live(fork, besides=besides).values()) > before


def test_a_fork_of_a_fork_branches_a_conversation(llama, prompt):
    ids, first, second = prompt(1, N), prompt(1, 7, seed=1), prompt(1, 8, seed=2)
    with laconic.compress(llama, laconic.SnapKV(keep=0.3, window=4)) as session, session.hold():
        llama(ids)
        talk = session.cache.fork()
        llama(first, past_key_values=talk)
        branch = talk.fork()
        want = llama(second, past_key_values=talk).logits
        llama(second[:, :3], past_key_values=branch.fork())
        got = llama(second, past_key_values=branch).logits
    assert torch.equal(got, want) and branch.seen == talk.seen == N + 15


@every_method
def test_beams_of_a_fork_leave_the_context_alone(llama, prompt, name):
    ids, question = prompt(1, N), prompt(1, 7, seed=1)
    options = {"max_new_tokens": 5, "num_beams": 3, "do_sample": False, "pad_token_id": 0}

    def beams(context):
        fork = context.fork()
        fork.batch_repeat_interleave(3)
        return llama.generate(torch.cat([ids, question], 1), past_key_values=fork, **options)

    with laconic.compress(llama, method(name, keep=0.5)) as session:
        llama(ids)
        context = session.cache
        before = tensors(context.fork())
        with session.hold():
            want, got = beams(context), beams(context)
    assert torch.equal(got, want) and same(tensors(context), before)


@every_method
def test_rewinding_goes_back_to_the_fork(llama, prompt, name):
    ids, question, steps = prompt(1, N), prompt(1, 9, seed=2), prompt(1, 12, seed=3)
    with laconic.compress(llama, method(name, keep=0.4)) as session:
        llama(ids)
        fork = session.cache.fork()
        layers = [id(layer.cache) for layer in fork.compressed()]
        want = ask(session, fork, question, steps)
        for _ in range(2):
            fork.rewind()
            assert fork.seen == N and fork.real == [N]
            assert torch.equal(ask(session, fork, question, steps), want)
        assert [id(layer.cache) for layer in fork.compressed()] == layers == [id(fork)] * 4


def test_a_fork_goes_back_to_its_own_beginning_alone(llama, prompt):
    """A chain of forks keeps nothing alive from before the last one."""
    with laconic.compress(llama, laconic.SnapKV(keep=0.5)) as session:
        llama(prompt(1, 24))
        cache = session.cache
        for turn in range(3):
            cache = cache.fork()
            assert cache.start is not None and cache.start.start is None
            with session.hold():
                llama(prompt(1, 3, seed=turn), past_key_values=cache)
        assert cache.seen == 33
        cache.rewind()
        assert cache.seen == 30 and cache.start.start is None
        cache.rewind()
        assert cache.seen == 30


def test_only_forks_rewind(llama, prompt):
    with laconic.compress(llama) as session:
        llama(prompt(1, 9))
        with pytest.raises(SessionError, match=r"ask a fork\(\) of it"):
            session.cache.rewind()


def test_a_fork_knows_how_much_has_waited_for_its_cut(llama, prompt):
    with laconic.compress(llama, laconic.AdaKV(keep=0.4, over="model")) as session:
        llama(prompt(1, N))
        waited, fork = session.stats.kv_bytes_waiting, session.cache.fork()
        assert waited > 0 and session.stats_of(fork).kv_bytes_waiting == waited
        llama(prompt(1, 2 * N, seed=1), past_key_values=fork)
        assert session.stats_of(fork).kv_bytes_waiting > waited
        fork.rewind()
        assert session.stats_of(fork).kv_bytes_waiting == waited


def test_half_a_pass_cannot_be_forked(llama, prompt):
    caught = []

    def fork(module, args, kwargs):
        try:
            kwargs["past_key_values"].fork()
        except SessionError as error:
            caught.append(str(error))

    handle = llama.model.layers[2].register_forward_pre_hook(fork, with_kwargs=True)
    with laconic.compress(llama):
        llama(prompt(1, 9))
    handle.remove()
    assert len(caught) == 1 and "middle of a pass" in caught[0]


@pytest.mark.parametrize("name", ["qwen2-sliding", "gemma3", "qwen3-next"])
def test_layers_that_laconic_leaves_alone_are_forked_too(name):
    model = ALL[name].build()
    ids, question, other = zoo_prompt(1, 40), zoo_prompt(1, 6, seed=4), zoo_prompt(1, 9, seed=5)
    want = model(torch.cat([ids, question], 1)).logits[:, -6:]
    with laconic.compress(model) as session:
        model(ids)
        context = session.cache
        model(other, past_key_values=context.fork())
        got = model(question, past_key_values=context.fork()).logits
        again = context.fork()
        model(other, past_key_values=again)
        again.rewind()
        assert torch.equal(model(question, past_key_values=again).logits, got)
    torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["llama", "gemma3", "qwen3-next"])
def test_a_cache_of_transformers_own_is_forked(name):
    model = ALL[name].build()
    ids, question, other = zoo_prompt(1, 40), zoo_prompt(1, 6, seed=4), zoo_prompt(1, 9, seed=5)
    context = model(ids, use_cache=True).past_key_values
    want = model(question, past_key_values=stock_fork(context)).logits
    model(other, past_key_values=stock_fork(context))
    assert torch.equal(model(question, past_key_values=stock_fork(context)).logits, want)
    assert context.get_seq_length() == 40
