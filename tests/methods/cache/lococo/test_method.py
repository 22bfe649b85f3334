"""LoCoCo in a session, line by line of its card's "must show"; the arithmetic of `compress` is in test_mixers.py."""

import pytest
import torch
from safetensors.torch import load_file, save_file

import laconic
from laconic import BudgetError
from laconic.artifact import Artifact, numbers
from laconic.cache.parts.base import DensePart
from laconic.methods.cache.lococo.method import MIXED, LoCoCo
from laconic.methods.cache.lococo.network import Mixer, compress

M, SLACK = 20, 6
GREEDY = {"max_new_tokens": 5, "do_sample": False, "return_dict_in_generate": True, "output_logits": True, "pad_token_id": 0}


@pytest.fixture(scope="module")
def mixers():
    """Random weights for the tiny model: four layers, keys of 8, M = 20, kernel 5."""
    torch.manual_seed(0)
    return torch.nn.ModuleList(Mixer(16, M // 2, 5) for _ in range(4)).requires_grad_(False)


def saved(mixers, path):
    """Mixers as an artifact for any model."""
    Artifact("lococo", "trained", "any", None, {"memory": M}, numbers(mixers)).save(path)
    return str(path)


@pytest.fixture
def artifact(mixers, tmp_path):
    return saved(mixers, tmp_path / "mixers.safetensors")


def logits(output):
    return torch.stack(output.logits)


def indices(session, layer=0):
    """Token numbers of one layer as stored, [B, Hkv, n]."""
    return next(x for x in session.cache.compressed() if x.number == layer).restored()[2]["index"]


# line 1
@pytest.mark.parametrize("mode", ["conv", "hh"])
@pytest.mark.parametrize("length", [5, M + SLACK - 4])
def test_up_to_the_slack_nothing_changes(llama, prompt, artifact, mode, length):
    ids = prompt(2, length)
    want = llama.generate(ids, **GREEDY)
    method = LoCoCo(slack=SLACK, mode=mode, artifact=artifact if mode == "conv" else None, memory=M)
    with laconic.compress(llama, method) as session:
        got = llama.generate(ids, **GREEDY)
    torch.testing.assert_close(logits(got), logits(want), atol=1e-5, rtol=1e-5)
    assert session.stats.entries == [length + 4] * 4  # the last of five tokens is not fed


def test_one_more_is_compressed(llama, prompt, artifact):
    with laconic.compress(llama, LoCoCo(slack=SLACK, artifact=artifact)) as session:
        llama(prompt(2, M + SLACK + 1))
    assert session.stats.entries == [M] * 4


# line 2
def test_without_nu_it_keeps_what_hh_keeps(llama, prompt, mixers, tmp_path):
    plain = torch.nn.ModuleList(Mixer(16, M // 2, 5) for _ in range(4))
    for mixer in plain:
        torch.nn.init.zeros_(mixer.nu)
    path = saved(plain, tmp_path / "plain.safetensors")
    ids = prompt(2, 60)
    entries = []
    for method in (LoCoCo(artifact=path), LoCoCo(memory=M, mode="hh")):
        with laconic.compress(llama, method) as session:
            llama(ids)
            entries.append([layer.restored()[:2] for layer in session.cache.compressed()])
    for ours, theirs in zip(*entries, strict=True):
        for b in range(2):
            for h in range(2):
                rows = [torch.cat([x[0][b, h], x[1][b, h]], -1) for x in (ours, theirs)]
                same = (rows[0][:, None] == rows[1][None]).all(-1)  # bit-equal entries, in another order
                assert bool(same.any(0).all()) and bool(same.any(1).all())


def test_hh_keeps_the_heaviest_of_the_last_pass(llama, prompt, passes):
    ids = prompt(1, 50)
    with laconic.compress(llama, LoCoCo(memory=M, slack=SLACK, mode="hh")) as session:
        llama(ids)
    for layer in range(4):
        queries, keys = passes[layer][0]
        rows = (queries @ keys.repeat_interleave(2, 1).transpose(-1, -2) * 8**-0.5).double()
        rows = rows.masked_fill(torch.ones(50, 50, dtype=torch.bool).triu(1), -torch.inf).softmax(-1)
        mass = rows.sum(2).view(1, 2, 2, 50).mean(2)
        for head in range(2):
            assert set(session.kept(layer, head).tolist()) == set(mass[0, head].topk(M).indices.tolist())


def test_the_scores_are_those_of_the_last_chunk_alone(llama, prompt, passes):
    """What earlier chunks gave does not count: the published method differs from H2O here."""
    ids = prompt(1, 50)
    with laconic.compress(llama, LoCoCo(memory=M, slack=0, mode="hh")) as session:
        llama(ids[:, :30])
        stored = next(session.cache.compressed()).parts[0].keys.clone()
        before = indices(session).clone()
        llama(ids[:, 30:], past_key_values=session.cache)
    queries, keys = passes[0][1]
    keys = torch.cat([stored, keys], 2)
    rows = (queries @ keys.repeat_interleave(2, 1).transpose(-1, -2) * 8**-0.5).double()
    rows[..., M:] = rows[..., M:].masked_fill(torch.ones(20, 20, dtype=torch.bool).triu(1), -torch.inf)
    mass = rows.softmax(-1).sum(2).view(1, 2, 2, 40).mean(2)
    for head in range(2):
        tokens = torch.cat([before[0, head], torch.arange(30, 50)])
        assert set(session.kept(0, head).tolist()) == set(tokens[mass[0, head].topk(M).indices].tolist())


# line 4
@pytest.mark.parametrize("chunk", [None, 16, 27])
def test_the_memory_has_m_entries_after_every_compression(llama, prompt, artifact, chunk):
    ids = prompt(2, 81)
    with laconic.compress(llama, LoCoCo(slack=SLACK, artifact=artifact)) as session:
        llama.generate(ids, prefill_chunk_size=chunk, **GREEDY | {"max_new_tokens": 1})
    assert session.stats.entries == [M + (chunk == 16)] * 4  # 81 = 5 * 16 + 1: one is within the slack
    index = indices(session)[:, :, :M]
    assert (index[:, :, M // 2 :] == MIXED).all()
    if chunk is None:  # later, learned slots may be among the heavy ones
        assert (index[:, :, : M // 2] >= 0).all()
    assert session.kept(0).tolist() == sorted(i for i in indices(session)[0, 0].tolist() if i >= 0)  # nothing is invented


# line 5
def test_one_chunk_is_a_single_forward(llama, prompt, artifact):
    ids, runs = prompt(2, 60), []
    for chunk in (None, 60, 100):
        with laconic.compress(llama, LoCoCo(artifact=artifact)):
            runs.append(logits(llama.generate(ids, prefill_chunk_size=chunk, **GREEDY)))
    assert torch.equal(runs[0], runs[1]) and torch.equal(runs[0], runs[2])


@pytest.mark.parametrize("chunk", [16, 27])
def test_a_memory_that_holds_the_text_changes_nothing(llama, prompt, chunk):
    ids = prompt(2, 60)
    want = llama.generate(ids, **GREEDY)
    with laconic.compress(llama, LoCoCo(memory=64, mode="hh")):
        got = llama.generate(ids, prefill_chunk_size=chunk, **GREEDY)
    torch.testing.assert_close(logits(got), logits(want), atol=1e-5, rtol=1e-5)


# line 7
def test_the_memory_is_bounded(llama, prompt, artifact):
    ids, chunk, most = prompt(1, 100), 10, []
    with laconic.compress(llama, LoCoCo(slack=SLACK, artifact=artifact)) as session:
        for start in range(0, 100, chunk):
            llama(ids[:, start : start + chunk], past_key_values=session.cache)
            most.append(max(layer.stored for layer in session.cache.compressed()))
        assert max(most) <= M + SLACK  # and a pass adds one chunk to it while it runs
        for i in range(40):
            llama(ids[:, i : i + 1], past_key_values=session.cache)
            assert max(layer.stored for layer in session.cache.compressed()) <= M + SLACK


# decoding
def test_decoding_compresses_every_slack_tokens(llama, prompt, artifact):
    ids = prompt(1, 60)
    counts = []
    with laconic.compress(llama, LoCoCo(slack=SLACK, artifact=artifact)) as session:
        llama(ids)
        for i in range(2 * (SLACK + 1)):
            llama(ids[:, i : i + 1], past_key_values=session.cache)
            counts.append(next(session.cache.compressed()).stored)
    assert counts == 2 * [*range(M + 1, M + SLACK + 1), M]


def test_a_decoded_compression_is_compress_of_what_is_stored(llama, prompt, artifact, mixers, passes):
    ids, stored = prompt(1, 40), []
    for slack in (1, 0):  # with a slack of 1 the decoded token is stored beside the others, without it it is merged
        with laconic.compress(llama, LoCoCo(slack=slack, artifact=artifact)) as session:
            llama(ids)
            llama(ids[:, :1], past_key_values=session.cache)
            keys, values, columns = next(session.cache.compressed()).restored()
            stored.append((keys.clone(), values.clone(), columns["index"].clone()))
    (keys, values, index), got = stored
    assert (keys.shape[2], got[0].shape[2]) == (M + 1, M)
    rows = (passes[0][1][0] @ keys.repeat_interleave(2, 1).transpose(-1, -2) * 8**-0.5).softmax(-1)
    want_keys, want_values, heavy = compress(keys, values, rows.sum(2).view(1, 2, 2, M + 1).mean(2), mixers[0], M // 2)
    torch.testing.assert_close(got[0], want_keys, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(got[1], want_values, atol=1e-5, rtol=1e-5)
    assert torch.equal(got[2][:, :, : M // 2], index.gather(2, heavy))


# batches, files, turns
@pytest.mark.parametrize("chunk", [None, 16])
@pytest.mark.parametrize("pad", [23, 50])
def test_a_padded_batch_equals_single_runs(llama, prompt, artifact, chunk, pad):
    """With 50 of 70 tokens padding, one row is compressed and the other is not."""
    ids, mask = prompt(2, 70), torch.ones(2, 70, dtype=torch.long)
    ids[0, :pad], mask[0, :pad] = 0, 0
    many = GREEDY | {"max_new_tokens": 2 * SLACK}
    method = LoCoCo(slack=SLACK, artifact=artifact)
    rows = []
    if chunk is None:
        with laconic.compress(llama, method):
            both = logits(llama.generate(ids, attention_mask=mask, **many))
        for row in range(2):
            with laconic.compress(llama, method):
                rows.append(logits(llama.generate(ids[row][mask[row] == 1][None], **many))[:, 0])
    else:  # chunks of a padded row begin elsewhere than those of the row alone: compare the mixing of equal chunks
        with laconic.compress(llama, method):
            both = logits(llama.generate(ids, attention_mask=mask, prefill_chunk_size=chunk, **many))
        for row in range(2):
            with laconic.compress(llama, method):
                alone = llama.generate(
                    ids[row : row + 1], attention_mask=mask[row : row + 1], prefill_chunk_size=chunk, **many
                )
                rows.append(logits(alone)[:, 0])
    torch.testing.assert_close(both, torch.stack(rows, 1), atol=1e-4, rtol=1e-4)


def test_protected_tokens_stay(llama, prompt, artifact):
    ids = prompt(1, 60)
    with laconic.compress(llama, LoCoCo(slack=0, artifact=artifact), protect=[(3, 9)]) as session:
        llama.generate(ids, prefill_chunk_size=20, **GREEDY)
    for layer in range(4):
        for head in range(2):
            assert set(range(3, 9)) <= set(session.kept(layer, head).tolist())
    many = laconic.compress(llama, LoCoCo(artifact=artifact), protect=[(0, M // 2 + 1)])
    with pytest.raises(BudgetError, match=r"11 tokens are protected, but only 10 of the 20"), many:
        llama(ids)


def test_local_tokens_stay(llama, prompt, artifact):
    with laconic.compress(llama, LoCoCo(local=6, artifact=artifact)) as session:
        llama(prompt(1, 60))
    assert all(set(range(54, 60)) <= set(session.kept(layer).tolist()) for layer in range(4))


def test_saved_parts_go_on_where_they_were(llama, prompt, artifact, tmp_path):
    ids, outs = prompt(2, 60), []
    for saved in (False, True):
        with laconic.compress(llama, LoCoCo(slack=2, artifact=artifact)) as session:
            llama(ids)
            if saved:
                for number, layer in enumerate(session.cache.compressed()):
                    save_file(layer.parts[0].tensors(), tmp_path / f"{number}.safetensors")
                    layer.parts = [DensePart.from_tensors(load_file(tmp_path / f"{number}.safetensors"))]
            steps = [llama(ids[:, i : i + 1], past_key_values=session.cache).logits for i in range(7)]
        outs.append(torch.cat(steps, 1))
    assert torch.equal(*outs)


def test_beams_and_turns(llama, prompt, artifact):
    ids = prompt(2, 60)
    with laconic.compress(llama, LoCoCo(slack=1, artifact=artifact)) as session:
        first = llama.generate(ids, **GREEDY).sequences
        llama.generate(torch.cat([first, prompt(2, 12, seed=1)], 1), past_key_values=session.cache, **GREEDY)
        assert session.cache.seen == 60 + 5 + 12 + 4
        beams = llama.generate(ids, num_beams=3, **GREEDY | {"output_logits": False}).sequences
    assert beams.shape == (2, 65) and session.stats.entries[0] <= M + 1


def test_bf16(make_llama, prompt, artifact):
    model = make_llama().to(torch.bfloat16)
    with laconic.compress(model, LoCoCo(artifact=artifact)) as session:
        out = model.generate(prompt(2, 60), **GREEDY)
    assert bool(logits(out).isfinite().all()) and session.stats.kv_bytes == 4 * 2 * 2 * (M + 4) * 2 * 8 * 2


def test_the_shipped_weights_are_those_of_the_testbed():
    model, tokenizer = laconic.load("testbed/lm")
    ids = tokenizer("The code for falcon is 4815263.\n" * 30, return_tensors="pt")["input_ids"]
    with torch.inference_mode(), laconic.compress(model, LoCoCo()) as session:
        model.generate(ids, prefill_chunk_size=128, **GREEDY)
    assert ids.shape[1] > 256 and all(128 <= count <= 128 + 16 for count in session.stats.entries)
    assert session.stats.achieved < 0.6


# budgets
def test_budgets_of_the_learned_mode(llama, prompt, artifact):
    for given in ({"tokens": M}, {"keep": 0.25}, {"memory": M}, {"bytes": M * 512}):  # a token costs 512 bytes here
        with laconic.compress(llama, LoCoCo(artifact=artifact, **given)) as session:
            llama(prompt(1, 4 * M))
        assert session.stats.entries == [M] * 4 and session.stats.asked == 0.25
    for given in ({"tokens": M + 1}, {"memory": M + 1}, {"keep_rate": 0.4}, {"local": M // 2 + 1}):
        with pytest.raises(BudgetError, match="lococo: "):
            laconic.compress(llama, LoCoCo(artifact=artifact, **given))
    with laconic.compress(llama, LoCoCo(artifact=artifact, keep=0.5)), pytest.raises(BudgetError, match="works for 20 only"):
        llama(prompt(1, 4 * M))


def test_budgets_of_the_baseline_mode(llama, prompt):
    cases = [({"memory": 15}, 15), ({"tokens": 15}, 15), ({"keep": 0.2}, 16), ({"bytes": 9 * 512}, 9)]
    for given, entries in cases:
        with laconic.compress(llama, LoCoCo(mode="hh", **given)) as session:
            llama(prompt(1, 80))
        assert session.stats.entries == [entries] * 4
    assert str(LoCoCo(mode="hh").budget) == "tokens=512"
    with pytest.raises(BudgetError, match="give one of them"):
        LoCoCo(mode="hh", memory=15, tokens=16)


def test_a_neutral_budget_needs_no_weights(llama, prompt):
    ids = prompt(1, 40)
    want = llama(ids).logits
    with laconic.compress(llama, LoCoCo(keep=1.0)):
        torch.testing.assert_close(llama(ids).logits, want, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"mode": "both"}, "choose 'conv' or 'hh'"),
        ({"keep_rate": 1.0}, "between 0 and 1"),
        ({"slack": -1}, "slack=-1"),
        ({"memory": 1}, "memory=1"),
    ],
)
def test_parameters_that_make_no_sense(given, message):
    with pytest.raises(ValueError, match=message):
        LoCoCo(**given)
