"""Every method of the catalogue against every case that a user may bring. What a method keeps is tested elsewhere."""

import pytest
import torch
from helpers.flops import counted
from helpers.live import addresses, live
from helpers.method_tools import CHOOSERS, METHODS, STORAGE, method
from safetensors.torch import load_file, save_file

import laconic
from laconic.cache.parts.base import KINDS
from laconic.ops import compiled

pytestmark = pytest.mark.filterwarnings("ignore:(kivi|gear) was asked to keep")  # the latest entries are whole
N, NEW = 80, 5
GREEDY = {
    "max_new_tokens": NEW,
    "do_sample": False,
    "return_dict_in_generate": True,
    "output_logits": True,
    "pad_token_id": 0,
}

every_method = pytest.mark.parametrize("name", METHODS)
PER_ENTRY = 4 * 2 * 2 * 8 * 4  # layers, KV heads, keys and values, head dimension, bytes


def padded(prompt, batch=2, n=N, pad=23):
    """ids and mask; the first row is padded on the left."""
    ids, mask = prompt(batch, n), torch.ones(batch, n, dtype=torch.long)
    ids[0, :pad], mask[0, :pad] = 0, 0
    return ids, mask


def logits(output):
    return torch.stack(output.logits)  # [new, B, vocabulary]


def entries(session):
    """Entries of every layer and head, [layers, B, Hkv]."""
    return torch.stack([layer.lengths for layer in session.cache.compressed()])


@pytest.fixture(scope="module")
def reference(llama):
    """Uncompressed runs by a key of their own, computed once."""
    known = {}

    def run(key, **arguments):
        if key not in known:
            known[key] = llama.generate(**arguments)
        return known[key]

    return run


@every_method
def test_gradients_that_nobody_asked_to_leave_out_change_nothing(make_llama, prompt, name):
    """A model fresh from loading: its parameters want gradients, and few users write no_grad."""
    model, ids = make_llama(), prompt(1, N)

    def run():
        with laconic.compress(model, method(name, keep=0.5)) as session:
            out = [model(ids[:, :-NEW]).logits[:, -1]]
            out += [model(token, past_key_values=session.cache).logits[:, -1] for token in ids[:, -NEW:].split(1, 1)]
        return torch.stack(out)

    quiet = run()
    model.requires_grad_(True)
    torch.testing.assert_close(run().detach(), quiet, atol=1e-4, rtol=1e-4)  # fused kernels are for runs without


@every_method
@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_neutral_setting_reproduces_the_model(make_llama, prompt, reference, name, implementation):
    model = make_llama(implementation=implementation)  # the weights of `llama`
    ids, mask = padded(prompt)
    want = reference("padded", inputs=ids, attention_mask=mask, **GREEDY)
    with laconic.compress(model, method(name, keep=1.0)) as session:
        got = model.generate(ids, attention_mask=mask, **GREEDY)
    assert model.config._attn_implementation == implementation
    assert torch.equal(got.sequences, want.sequences)
    torch.testing.assert_close(logits(got), logits(want), atol=1e-5, rtol=1e-5)
    assert session.stats.achieved == 1 and not session.trace.events


@pytest.mark.parametrize("name", CHOOSERS)
@pytest.mark.parametrize(
    "budget", [{"keep": 0.5}, {"keep": 0.25}, {"keep": 0.1}, {"tokens": 30}, {"bytes": 20_000}], ids=str
)
def test_budgets_are_met(llama, prompt, name, budget):
    asked = budget.get("tokens") or budget.get("bytes", 0) // PER_ENTRY or int(N * budget["keep"])
    with laconic.compress(llama, method(name, **budget)) as session:
        llama(prompt(2, N))
    mean = entries(session).float().mean((0, 2))
    assert all(abs(float(m) - asked) <= max(1.0, 0.02 * asked) for m in mean)
    stats = session.stats
    assert stats.asked == asked / N and stats.achieved == pytest.approx(float(mean.mean()) / N)
    assert stats.kv_bytes == pytest.approx(int(entries(session).sum()) * 2 * 8 * 4)
    assert stats.kv_bytes_full == 2 * N * PER_ENTRY
    if "bytes" in budget:
        assert stats.kv_bytes <= 2 * 1.02 * budget["bytes"]


@pytest.mark.parametrize("name", STORAGE)
@pytest.mark.parametrize("budget", [{"keep": 0.75}, {"tokens": 60}, {"bytes": int(0.75 * N * PER_ENTRY)}], ids=str)
def test_all_entries_stay_in_fewer_bytes(llama, prompt, name, budget):
    with laconic.compress(llama, method(name, **budget)) as session:
        llama(prompt(2, N))
    stats, waiting = session.stats, 16 / N  # the latest entries may still be whole
    assert bool((entries(session) == N).all())
    assert stats.kv_bytes_full == 2 * N * PER_ENTRY and stats.asked == pytest.approx(0.75, abs=0.01)
    assert stats.achieved == stats.kv_bytes / stats.kv_bytes_full < stats.asked * (1 - waiting) + waiting


@pytest.mark.slow
@every_method
@pytest.mark.parametrize("keep", [0.5, 0.3])
def test_reported_flops_are_all_that_ran(llama, prompt, monkeypatch, name, keep):
    """In a prompt, and in tokens decoded after it; loops that torch cannot see are left out of these. GEAR's corrections are
    read along with the entries that they correct and are not counted: here rank 1 beside a head dimension of 8."""
    monkeypatch.setattr(compiled, "ROWS", 0)
    ids, steps = prompt(1, N), prompt(1, NEW, seed=1)
    with torch.inference_mode(), laconic.compress(llama, method(name, keep=keep), count_flops=True) as session:
        with counted() as ran:
            llama(ids)
        assert session.stats.prompt_flops == pytest.approx(ran.total(), rel=0.005)
        with counted() as ran:
            for token in steps.split(1, 1):
                llama(token, past_key_values=session.cache)
        assert session.stats.answer_flops == pytest.approx(ran.total(), rel=0.06 if name == "gear" else 0.03)


@every_method
def test_a_padded_batch_equals_single_runs(llama, prompt, name):
    ids, mask = padded(prompt)
    with laconic.compress(llama, method(name, keep=0.3)) as session:
        both = llama.generate(ids, attention_mask=mask, **GREEDY)
        counts = entries(session)
    for row in range(2):
        alone = ids[row][mask[row] == 1][None]
        with laconic.compress(llama, method(name, keep=0.3)) as session:
            single = llama.generate(alone, **GREEDY)
        assert torch.equal(both.sequences[row, N:], single.sequences[0, alone.shape[1] :])
        torch.testing.assert_close(logits(both)[:, row], logits(single)[:, 0], atol=1e-4, rtol=1e-4)
        assert torch.equal(counts[:, row], entries(session)[:, 0])


@every_method
@pytest.mark.parametrize("kv_heads", [1, 4])
def test_other_groupings_of_query_heads(make_llama, prompt, name, kv_heads):
    model = make_llama(kv_heads=kv_heads, layers=2)
    ids = prompt(2, 41)
    want = model.generate(ids, **GREEDY)
    with laconic.compress(model, method(name, keep=1.0)):
        torch.testing.assert_close(logits(model.generate(ids, **GREEDY)), logits(want), atol=1e-5, rtol=1e-5)
    with laconic.compress(model, method(name, model, keep=0.5)) as session:
        changed = model.generate(ids, **GREEDY)
    counts = entries(session)
    assert counts.shape == (2, 2, kv_heads)
    whole = int(counts.sum()) * 2 * 8 * 4  # never repeated per query head
    assert session.stats.kv_bytes == whole if name in CHOOSERS else session.stats.kv_bytes < whole
    assert (logits(changed) - logits(want)).abs().max() > 1e-3


@pytest.mark.slow
@every_method
def test_bf16(make_llama, prompt, name):
    model = make_llama(layers=2).to(torch.bfloat16)
    ids = prompt(2, 40)
    want = model(ids).logits.float()
    with laconic.compress(model, method(name, keep=1.0)) as whole:
        got = model(ids).logits.float()
    assert (got - want).norm() < 0.02 * want.norm()
    with laconic.compress(model, method(name, model, keep=0.5)) as session:
        steps = model.generate(ids, **GREEDY)
    assert bool(logits(steps).isfinite().all())
    assert whole.stats.kv_bytes == 2 * 2 * 2 * 40 * 2 * 8 * 2
    stored = int(entries(session).sum()) * 2 * 8 * 2
    assert session.stats.kv_bytes == stored if name in CHOOSERS else session.stats.kv_bytes < stored
    assert all(part.padded()[0].dtype == torch.bfloat16 for layer in session.cache.compressed() for part in layer.parts)


@every_method
@pytest.mark.parametrize("chunk", [16, 27, 79])
def test_chunked_prefill(llama, prompt, reference, name, chunk):
    """Chunks of 16 (even), 27 (a rest of 26) and 79 (a rest of one token)."""
    ids = prompt(2, N)
    want = reference("plain", inputs=ids, **GREEDY)
    with laconic.compress(llama, method(name, keep=1.0)):
        got = llama.generate(ids, prefill_chunk_size=chunk, **GREEDY)
    torch.testing.assert_close(logits(got), logits(want), atol=2e-5, rtol=2e-5)
    with laconic.compress(llama, method(name, keep=0.25)) as session:
        llama.generate(ids, prefill_chunk_size=chunk, **(GREEDY | {"max_new_tokens": 1}))
    assert session.cache.seen == N
    assert abs(float(entries(session).float().mean()) - (N // 4 if name in CHOOSERS else N)) <= 1
    assert session.stats.prefill_flops > 0 and bool(session.trace.events) == (name in CHOOSERS)


@every_method
@pytest.mark.parametrize("keep", [1.0, 0.3])
def test_several_turns_on_one_cache(llama, prompt, name, keep):
    ids, more = prompt(2, N), prompt(2, 11, seed=1)
    fed = []
    hook = llama.register_forward_pre_hook(lambda m, a, k: fed.append(k["input_ids"].shape[1]), with_kwargs=True)
    try:
        with laconic.compress(llama, method(name, keep=keep)) as session:
            first = llama.generate(ids, **GREEDY).sequences
            talk = torch.cat([first, more], 1)
            second = llama.generate(talk, past_key_values=session.cache, **GREEDY)
            counts = entries(session)
    finally:
        hook.remove()
    assert fed == [N] + [1] * (NEW - 1) + [12] + [1] * (NEW - 1)  # the last token of a turn was not fed in that turn
    seen = N + NEW + 11 + NEW - 1
    assert session.cache.seen == seen and session.cache.real == [seen, seen]
    if keep == 1.0:
        want = llama.generate(talk, **GREEDY)
        torch.testing.assert_close(logits(second), logits(want), atol=2e-5, rtol=2e-5)
    if keep == 1.0 or name in STORAGE:
        assert bool((counts == seen).all())
    else:
        prompt_tokens = N + NEW + 11
        low, high = int(prompt_tokens * keep), int(prompt_tokens * keep) + NEW
        if name == "fastkv":  # the tokens of a second turn travel on in part, those of the first had been cut before
            low = int(0.8 * low)
        assert all(low - 1 <= float(x) <= high for x in counts.float().mean((0, 2)))


@every_method
def test_beam_search(llama, prompt, reference, name):
    ids, beams = prompt(2, N), GREEDY | {"num_beams": 3, "output_logits": False}
    want = reference("beams", inputs=ids, **beams)
    with laconic.compress(llama, method(name, keep=1.0)):
        assert torch.equal(llama.generate(ids, **beams).sequences, want.sequences)
    with laconic.compress(llama, method(name, keep=0.25)) as session:
        got = llama.generate(ids, **beams).sequences
    assert got.shape == (2, N + NEW) and torch.equal(got[:, :N], ids)
    assert session.cache.seen == N + NEW - 1 and session.cache.real == [N + NEW - 1] * 6
    assert entries(session).shape == (4, 6, 2)
    newest = [session.kept(layer, head, row)[-1].item() for layer in range(4) for head in range(2) for row in range(6)]
    assert set(newest) == {N + NEW - 2}


@every_method
def test_sampling(llama, prompt, name):
    ids = prompt(2, N)
    sample = {"max_new_tokens": NEW, "do_sample": True, "num_return_sequences": 2, "pad_token_id": 0}

    def run():
        torch.manual_seed(7)
        return llama.generate(ids, **sample)

    want = run()
    with laconic.compress(llama, method(name, keep=1.0)):
        assert torch.equal(run(), want)
    with laconic.compress(llama, method(name, keep=0.25)) as session:
        once, again = run(), run()
    assert torch.equal(once, again) and once.shape == (4, N + NEW)
    assert entries(session).shape == (4, 4, 2) and session.cache.seen == N + NEW - 1


def reload(session, folder):
    """Every part of the cache through a file of its own."""
    for number, layer in enumerate(session.cache.compressed()):
        for place, part in enumerate(layer.parts):
            save_file(part.tensors(), folder / f"{number}.{place}")
    for number, layer in enumerate(session.cache.compressed()):
        files = [folder / f"{number}.{place}" for place in range(len(layer.parts))]
        layer.parts = [KINDS[part.kind].from_tensors(load_file(f)) for part, f in zip(layer.parts, files, strict=True)]
    for layer in session.cache.compressed():
        for part in layer.parts:
            part.link(layer)


@every_method
def test_saved_parts_go_on_where_they_were(llama, prompt, name, tmp_path):
    ids, steps = prompt(2, N), prompt(2, 6, seed=3)

    def run(saved):
        out = []
        with laconic.compress(llama, method(name, keep=0.3)) as session:
            llama(ids)
            for i in range(6):
                if saved and i in (0, 3):
                    reload(session, tmp_path)
                out.append(llama(steps[:, i : i + 1], past_key_values=session.cache).logits)
            return torch.cat(out, 1), [session.kept(i, h, b).tolist() for i in range(4) for h in range(2) for b in range(2)]

    (want, kept), (got, again) = run(False), run(True)
    torch.testing.assert_close(got, want, atol=1e-6, rtol=1e-6)
    assert kept == again


@every_method
@pytest.mark.parametrize("leave", ["quietly", "by an error"])
def test_leaving_a_session_leaves_no_trace(llama, prompt, name, leave):
    ids = prompt(2, 40)
    weights = {k: v.clone() for k, v in llama.state_dict().items()}
    before, implementation = llama(ids).logits, llama.config._attn_implementation
    members = {n: set(vars(m)) for n, m in llama.named_modules()}
    hooks = {n: (list(m._forward_hooks), list(m._forward_pre_hooks)) for n, m in llama.named_modules()}
    try:
        with laconic.compress(llama, method(name, keep=0.25)):
            llama.generate(ids, **GREEDY)
            if leave == "by an error":
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    assert torch.equal(llama(ids).logits, before)
    assert llama.config._attn_implementation == llama.model.config._attn_implementation == implementation
    # transformers leaves a hook of its own on a model that was once asked for hidden states
    assert hooks == {n: (list(m._forward_hooks), list(m._forward_pre_hooks)) for n, m in llama.named_modules()}
    assert {n: set(vars(m)) for n, m in llama.named_modules()} == members
    state = llama.state_dict()
    assert state.keys() == weights.keys() and all(torch.equal(state[k], weights[k]) for k in weights)


@every_method
@pytest.mark.parametrize("batch", ["one", "padded"])
def test_the_bytes_that_are_reported_are_those_held(llama, prompt, name, batch):
    """After a prompt that came in two passes, after every decoded token, and when the session is over."""
    ids, mask = padded(prompt) if batch == "padded" else (prompt(1, N), torch.ones(1, N, dtype=torch.long))
    ids, mask = torch.cat([ids, ids[:, :NEW]], 1), torch.cat([mask, mask.new_ones(len(mask), NEW)], 1)
    chosen = method(name, keep=0.5)

    def check():
        held = live(session, cache, besides=besides)
        stray = {path: size for path, size in held.items() if ".parts[" not in path}
        assert sum(held.values()) == cache.allocated, stray

    with laconic.compress(llama, chosen, protect=[(30, 34)]) as session:
        besides = addresses(llama, chosen)  # before anything has run: what a method holds later counts
        cache = None
        for start, stop in ((0, 50), (50, N), *((n, n + 1) for n in range(N, N + NEW))):
            cache = llama(ids[:, start:stop], attention_mask=mask[:, :stop], past_key_values=cache).past_key_values
            check()
            assert session.stats.kv_bytes_allocated == cache.allocated >= cache.nbytes
    check()
