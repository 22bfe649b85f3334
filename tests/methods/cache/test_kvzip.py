"""KVzip against a plain pass over the prompt and its repetition."""

from itertools import pairwise

import pytest
import torch
from helpers.replay_by_hand import Words, seen_by_segments, strongest_by_hand, strongest_under_a_mask

import laconic
from laconic import KVzip, UnsupportedModelError

N = 41


class Recording(KVzip):
    """Remembers what it scored, and the keys that the scores are of."""

    def attach(self, model):
        super().attach(model)
        self.scores, self.keys, self.index = {}, {}, {}

    def _score(self, obs):
        found = super()._score(obs)
        self.scores.setdefault(obs.layer, []).append(found.clone())
        self.keys[obs.layer], self.index[obs.layer] = obs.keys.clone(), obs.index.clone()
        return found


@pytest.mark.parametrize("asks", [[], [5, 6, 7]])
def test_scores_are_the_maxima_of_the_repetition(llama, prompt, asks):
    method, ids = Recording(keep=0.4), prompt(1, N)
    with laconic.compress(llama, method, tokenizer=Words() if asks else None):
        llama(ids)
    want = strongest_by_hand(llama, ids, asks)
    got = torch.cat([method.scores[layer][0] for layer in range(4)])
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("chunk", "chunks"), [(N, 1), (N - 1, 2), (14, 3), (5, 9), (None, 1)])
@pytest.mark.parametrize("asks", [[], [5, 6, 7]])
def test_long_prompts_are_repeated_in_chunks(llama, prompt, monkeypatch, chunk, chunks, asks):
    """Every chunk once, each repetition seeing its own chunk, against a plain pass under a mask made by hand."""
    monkeypatch.setattr("laconic.cache.replay.LEAD", 4)
    method, ids = Recording(keep=0.4, chunk=chunk, sinks=3), prompt(1, N)
    with laconic.compress(llama, method, tokenizer=Words() if asks else None):
        llama(ids)
    want = strongest_under_a_mask(llama, ids, asks, seen_by_segments(N, len(asks), chunks, 3, 4))
    got = torch.cat([method.scores[layer][0] for layer in range(4)])
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-6)
    assert (got > 0).all()


def test_chunks_leave_the_prompt_alone_and_cost_less(llama, prompt):
    ids, flops = prompt(2, N), []
    want = llama(ids).logits
    for chunk in (None, 20, 10):
        with laconic.compress(llama, KVzip(tokens=N, chunk=chunk), tokenizer=Words()) as session:
            torch.testing.assert_close(llama(ids).logits, want, rtol=0, atol=1e-5)
        flops.append(session.stats.prefill_flops)
    assert flops[0] > flops[1] > flops[2]
    plain = session.shape
    n = N
    edges = [n * i // 5 for i in range(6)]
    pairs = n * (n + 1) // 2
    for i, (a, b) in enumerate(pairwise(edges)):
        lead = max(0, a - 32)
        number = b - a + (3 if i == 0 else 0)
        seen = min(4, lead) + (b - lead) + (3 + a - lead if i else 0)
        pairs += number * seen + number * (number + 1) // 2
    linear = sum(2 * w * (2 * n + 3) for w in plain.weights)
    attention = 4 * 4 * plain.head_dim * plain.heads * pairs
    assert flops[2] == 2 * (linear + attention + 2 * plain.head_weights * n)


def test_the_repetition_leaves_no_trace(llama, prompt):
    """Logits, stored keys, positions and lengths are those of a run without it, as long as nothing is cut."""
    ids = prompt(2, N)
    with laconic.compress(llama) as plain:
        want = llama(ids).logits
    with laconic.compress(llama, KVzip(tokens=N), tokenizer=Words()) as session:
        got = llama(ids).logits
    torch.testing.assert_close(got, want, rtol=0, atol=1e-5)
    assert session.cache.get_seq_length() == N and not session.trace.events
    for ours, theirs in zip(session.cache.compressed(), plain.cache.compressed(), strict=True):
        for name in ("keys", "values"):  # a longer pass rounds a little differently
            torch.testing.assert_close(getattr(ours.parts[0], name), getattr(theirs.parts[0], name), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("over", ["model", "layer", "head"])
def test_who_competes(llama, prompt, over):
    """The best of all, of each layer, or of each head, by the scores; sinks stay everywhere."""
    method, ids = Recording(keep=0.3, over=over, sinks=2), prompt(1, N)
    with laconic.compress(llama, method) as session:
        llama(ids)
    scores = torch.cat([method.scores[layer][0] for layer in range(4)])  # [4, 2, N]
    scores[..., :2] = 9.0
    count = int(0.3 * N)
    groups = {"model": [[(x, y) for x in range(4) for y in range(2)]], "layer": [[(x, 0), (x, 1)] for x in range(4)]}
    groups["head"] = [[(x, y)] for x in range(4) for y in range(2)]
    for group in groups[over]:
        ranked = sorted(((-float(scores[x, y, t]), x, y, t) for x, y in group for t in range(N)))[: count * len(group)]
        for x, y in group:
            assert session.kept(x, y).tolist() == sorted(t for _, a, b, t in ranked if (a, b) == (x, y))
    assert sum(int(layer.lengths.sum()) for layer in session.cache.compressed()) == count * 8


@pytest.mark.parametrize("read", [0, 20])
def test_what_was_held_was_never_repeated_and_ranks_last(llama, prompt, read):
    """Entries that were stored while a session was held have no score of their own, so they count as needed by nobody."""
    method, ids = Recording(tokens=24), prompt(1, read + 6 + 30)
    with laconic.compress(llama, method) as session:
        if read:
            llama(ids[:, :read])
        with session.hold():
            llama(ids[:, read : read + 6], past_key_values=session.cache)
        llama(ids[:, read + 6 :], past_key_values=session.cache)
    for layer in range(4):
        held = (method.index[layer] >= read) & (method.index[layer] < read + 6)
        scores = method.scores[layer][-1]
        assert held.any() and (scores[held] == 0).all() and (scores[~held] > 0).all()


def test_all_ways_agree_for_one_layer_of_one_head(make_llama, prompt):
    model, ids = make_llama(layers=1, heads=2, kv_heads=1), prompt(1, N)
    kept = []
    for over in ("model", "layer", "head"):
        with laconic.compress(model, KVzip(keep=0.3, over=over)) as session:
            model(ids)
        kept.append(session.kept(0).tolist())
    assert kept[0] == kept[1] == kept[2]


@pytest.mark.parametrize("chunk", [1024, 20, 9])
def test_a_short_row_scores_as_alone(llama, prompt, monkeypatch, chunk):
    monkeypatch.setattr("laconic.cache.replay.LEAD", 4)
    ids, mask = prompt(2, N), torch.ones(2, N, dtype=torch.long)
    ids[0, :13], mask[0, :13] = 0, 0
    both, alone = Recording(keep=0.4, chunk=chunk), Recording(keep=0.4, chunk=chunk)
    with laconic.compress(llama, both, tokenizer=Words()):
        llama(ids, attention_mask=mask)
    with laconic.compress(llama, alone, tokenizer=Words()):
        llama(ids[:1, 13:])
    for layer in range(4):
        torch.testing.assert_close(both.scores[layer][0][0, :, 13:], alone.scores[layer][0][0], rtol=1e-4, atol=1e-6)


def test_every_chunk_is_repeated_once(llama, prompt):
    """Entries keep the score of the repetition of their own chunk; the second one's goes over what the first left."""
    method, ids = Recording(tokens=N), prompt(1, N)
    with laconic.compress(llama, method, tokenizer=Words()) as session:
        llama(ids[:, :25])
        llama(ids[:, 25:], past_key_values=session.cache)
    whole, first = strongest_by_hand(llama, ids, [5, 6, 7]), strongest_by_hand(llama, ids[:, :25], [5, 6, 7])
    for layer in range(4):
        chunks = method.scores[layer]
        assert [c.shape[-1] for c in chunks] == [25, N]
        torch.testing.assert_close(chunks[1][..., :25], chunks[0], rtol=0, atol=0)
        torch.testing.assert_close(chunks[0][0], first[layer], rtol=1e-4, atol=1e-6)
        assert chunks[1][..., 25:].shape[-1] == N - 25 and (whole[layer] > 0).all()


def test_one_cut_serves_all_questions(llama, prompt):
    """What stays does not depend on a question, and a question asked of the cut cache sees what a fresh one sees."""
    ids, questions = prompt(1, N), [prompt(1, 6, seed=s) for s in (3, 4)]
    logits = []
    for question in questions:
        with laconic.compress(llama, KVzip(keep=0.3)) as session:
            llama(ids)
            kept = [session.kept(layer, head).tolist() for layer in range(4) for head in range(2)]
            with session.hold():
                logits.append(llama(question, past_key_values=session.cache).logits)
        assert kept == [[t for t in session.kept(x, y).tolist() if t < N] for x in range(4) for y in range(2)]
    assert not torch.allclose(logits[0], logits[1])


def test_its_cost_is_counted(llama, prompt):
    with laconic.compress(llama, KVzip(keep=0.3)) as session:
        llama(prompt(1, N))
    assert session.stats.prefill_flops > 1.9 * session.stats.prefill_flops_full


def test_what_it_refuses(llama, prompt, vlm):
    for wrong in ({"over": "token"}, {"sinks": -1}, {"sinks": 1.5}, {"chunk": 0}):
        with pytest.raises(ValueError, match="kvzip: "):
            KVzip(**wrong)
    with laconic.compress(llama, KVzip(keep=0.5)), pytest.raises(UnsupportedModelError, match="repeats token ids"):
        llama(inputs_embeds=llama.get_input_embeddings()(prompt(1, 8)))


def test_its_name_is_one_line():
    assert "\n" not in str(KVzip(keep=0.5)) and "Repeat the previous context exactly" in str(KVzip(keep=0.5))


def test_a_session_without_a_tokenizer_has_no_instruction(llama):
    method = KVzip(keep=0.5)
    laconic.compress(llama, method, tokenizer=Words())
    assert method._asks == [5, 6, 7]
    laconic.compress(llama, method)
    assert method._asks == []


def test_gradients_may_be_on(llama, prompt):
    with torch.enable_grad(), laconic.compress(llama, KVzip(keep=0.5)):
        llama.get_input_embeddings().weight.requires_grad_(True)
        try:
            llama(prompt(1, 12)).logits.sum().backward()
        finally:
            llama.get_input_embeddings().weight.requires_grad_(False)
            llama.get_input_embeddings().weight.grad = None
