"""Drafts wait until it is known which of them stay, and what was stored whole can be removed again."""

import copy

import pytest
import torch
from helpers.method_tools import CHOOSERS, METHODS, method
from helpers.session_tools import untouched
from helpers.zoo import ALL, Tiny
from hypothesis import given, settings
from hypothesis import strategies as st

import laconic
from laconic import H2O, KIVI, SessionError, SnapKV, StreamingLLM
from laconic.cache.parts.base import DensePart

__all__ = ["untouched"]  # a fixture

GREEDY = {"max_new_tokens": 12, "do_sample": False}
SEVERAL = GREEDY | {"output_logits": True, "return_dict_in_generate": True}
BUILD = ALL | {"lfm2": Tiny("Lfm2", {"layer_types": ["conv", "full_attention"] * 2}, full=(1, 3))}
MIXED = ["gemma2", "gemma3", "qwen2-sliding", "cohere2", "lfm2"]


@pytest.fixture
def repeating(prompt):
    """60 tokens that repeat themselves, so that prompt look-up finds drafts from the first pass on."""
    return prompt(1, 20).repeat(1, 3)


def decoding(name):
    return name in CHOOSERS and laconic.method.find(name).cls.evicts_while_decoding


def contents(session):
    return [[session.kept(layer, head).tolist() for head in range(2)] for layer in session.cache.layer_ids]


# -- the model verifies drafts ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", METHODS)
def test_prompt_lookup_is_decoding_one_by_one(untouched, repeating, name):
    """The same tokens, from the same logits, and the same entries are left."""
    runs = []
    for options in ({}, {"prompt_lookup_num_tokens": 3}):
        with laconic.compress(untouched, method(name, keep=0.4)) as session:
            runs.append((untouched.generate(repeating, **SEVERAL, **options), contents(session), session.stats.kv_bytes))
    (plain, kept, size), (drafted, drafted_kept, drafted_size) = runs
    assert [len(head) for layer in drafted_kept for head in layer] == [len(head) for layer in kept for head in layer]
    assert drafted_size == size
    if decoding(name):  # a draft still sees what the drafts before it in the same pass will evict
        return
    exact = 1e-4 if name in CHOOSERS else 1e-2  # or what will be packed because of them
    assert torch.equal(drafted.sequences, plain.sequences) and drafted_kept == kept
    torch.testing.assert_close(torch.stack(drafted.logits), torch.stack(plain.logits), atol=exact, rtol=exact)


@pytest.mark.parametrize("family", MIXED)
def test_models_with_windows_and_convolutions(family, repeating):
    model, drafts = BUILD[family].build("eager"), {"prompt_lookup_num_tokens": 3}
    stock = model.generate(repeating, **GREEDY, **drafts)
    with laconic.compress(model):
        assert torch.equal(model.generate(repeating, **GREEDY, **drafts), stock)
    with laconic.compress(model, SnapKV(keep=0.4)):
        plain = model.generate(repeating, **GREEDY)
        assert torch.equal(model.generate(repeating, **GREEDY, **drafts), plain)


def test_a_second_turn_with_drafts(untouched, repeating, prompt):
    """transformers feeds a whole prompt again in the first pass of assisted decoding, so only what is new is given."""
    question, answers = prompt(1, 8, seed=4), []
    for drafts in ({}, {"prompt_lookup_num_tokens": 3}):
        with laconic.compress(untouched, SnapKV(keep=0.4)) as session, torch.no_grad():
            untouched(repeating)
            with session.hold():
                mask = torch.ones(1, 68, dtype=torch.long)
                out = untouched.generate(question, attention_mask=mask, past_key_values=session.cache, **GREEDY, **drafts)
            answers.append((out.tolist(), contents(session)))
    assert answers[0] == answers[1]


# -- the model drafts ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", METHODS)
def test_a_compressed_assistant(untouched, make_llama, prompt, name):
    """Whatever it drafts, the answer is that of the model; its own prompt stays cut to the budget."""
    assistant, ids = make_llama(layers=2, seed=0), prompt(1, 40)
    stock = untouched.generate(ids, **GREEDY)
    with laconic.compress(assistant, method(name, assistant, keep=0.4)) as session:
        assert torch.equal(untouched.generate(ids, assistant_model=assistant, **GREEDY), stock)
    assert session.cache.nbytes < 0.95 * 2 * 2 * 2 * 8 * 4 * session.cache.seen


@pytest.mark.parametrize("family", ["llama", "qwen2-sliding"])
def test_an_assistant_takes_back_the_last_token_of_the_prompt(family, prompt):
    """A model that drafts nothing but wrong tokens: every round takes all of them back."""
    model, assistant = BUILD[family].build(), BUILD[family].build()
    assistant.lm_head.weight.data.neg_()
    ids = prompt(1, 40)
    stock = model.generate(ids, **GREEDY)
    with laconic.compress(assistant, H2O(keep=0.4)):
        assert torch.equal(model.generate(ids, assistant_model=assistant, **GREEDY), stock)


# -- loops by hand ---------------------------------------------------------------------------------------------------
TURNS = st.lists(
    st.one_of(
        st.tuples(st.just("prompt"), st.integers(2, 12), st.just(0)),
        st.tuples(st.just("drafts"), st.integers(1, 5), st.integers(0, 5)),
        st.tuples(st.just("decode"), st.just(1), st.just(0)),
    ),
    min_size=2,
    max_size=6,
)


@pytest.mark.parametrize(
    "compressor", [SnapKV(keep=0.4), KIVI(bits=4, group=8, residual=16), H2O(keep=0.5), laconic.TreeKV(keep=0.5)]
)
@settings(max_examples=12)
@given(turns=TURNS, seed=st.integers(0, 1000))
def test_drafts_that_were_taken_back_leave_no_trace(llama, compressor, turns, seed):
    """Any sequence of prompts, decoded tokens and verified drafts equals the one without those that were taken back."""
    tokens = torch.randint(3, 97, (1, 200), generator=torch.Generator().manual_seed(seed))
    with torch.no_grad(), laconic.compress(llama, compressor) as session:
        caches = []
        for drafting in (True, False):
            llama(tokens[:, :30])
            cache, at, spare = session.cache, 30, 150
            for kind, n, accepted in turns:
                accepted = min(n, accepted)
                if kind == "drafts":
                    if drafting:
                        cache.activate_past_recording()
                        wrong = tokens[:, spare : spare + n - accepted]
                        llama(torch.cat([tokens[:, at : at + accepted], wrong], 1), past_key_values=cache)
                        assert cache.get_seq_length() == at + n
                        cache.crop(accepted - n)
                        for layer in cache.layers:
                            layer.record_past = False
                    else:
                        for one in tokens[:, at : at + accepted].split(1, 1) if accepted else ():
                            llama(one, past_key_values=cache)
                    at += accepted
                else:
                    llama(tokens[:, at : at + n], past_key_values=cache)
                    at += n
                assert cache.get_seq_length() == at and cache.real == [at]
            caches.append((cache, llama(tokens[:, at : at + 1], past_key_values=cache).logits))
    (drafted, logits), (plain, wanted) = caches
    exact = compressor.name == "snapkv"  # the others evict or pack a little later than one by one, so deeper layers differ
    for layer in range(4):
        for head in range(2):
            got, wanted_tokens = drafted.kept(layer, head).tolist(), plain.kept(layer, head).tolist()
            assert got == wanted_tokens if layer == 0 or exact else len(got) == len(wanted_tokens)
    assert drafted.nbytes == plain.nbytes
    if exact:
        torch.testing.assert_close(logits, wanted, atol=1e-3, rtol=1e-3)


class Watching(StreamingLLM):
    """Notes the step with which every decoded token is stored, in the first layer."""

    def decoded(self, layer, obs):
        if obs.layer == 0:
            self.steps.append((obs.step.start, obs.step.length, obs.step.position_ids.tolist()))
        super().decoded(layer, obs)


def test_drafts_that_stay_are_stored_with_the_step_of_each(llama, prompt):
    """As if they had been decoded one by one: methods go by positions."""
    ids, seen = prompt(1, 40), []
    for drafts in (False, True):
        method = Watching(tokens=12)
        method.steps = []
        with torch.no_grad(), laconic.compress(llama, method) as session:
            llama(ids[:, :30])
            cache = session.cache
            if drafts:
                cache.activate_past_recording()
                llama(ids[:, 30:36], past_key_values=cache)
                cache.crop(-2)
                cache.settle()
            else:
                for one in ids[:, 30:34].split(1, 1):
                    llama(one, past_key_values=cache)
        seen.append(method.steps)
    assert seen[0] == seen[1] and [step[0] for step in seen[0]] == [30, 31, 32, 33]


def test_drafts_count_while_they_wait(llama, prompt):
    ids = prompt(1, 40)
    with torch.no_grad(), laconic.compress(llama, H2O(keep=0.5)) as session:
        llama(ids[:, :30])
        cache, before = session.cache, session.stats.kv_bytes
        cache.activate_past_recording()
        llama(ids[:, 30:34], past_key_values=cache)
        assert session.kept(0).tolist()[-4:] == [30, 31, 32, 33] and session.stats.entries == [19.0] * 4
        assert session.stats.kv_bytes == before + 4 * 4 * 2 * 2 * 8 * 4
        cache.crop(-3)  # one stays; the method evicts as it does after a decoded token
        assert session.stats.entries == [15.0] * 4 and cache.seen == 31
        llama(ids[:, 34:37], past_key_values=cache)
        cache.settle()  # nothing is taken back any more
        assert session.stats.entries == [17.0] * 4 and not any(layer.drafts.length for layer in cache.compressed())


def test_a_fork_has_drafts_of_its_own(llama, prompt):
    ids = prompt(1, 40)
    with torch.no_grad(), laconic.compress(llama, SnapKV(keep=0.5)) as session:
        llama(ids[:, :30])
        cache = session.cache
        cache.activate_past_recording()
        twins = cache.fork(), cache.fork()
        llama(ids[:, 30:34], past_key_values=twins[0])
        assert [twin.get_seq_length() for twin in (cache, *twins)] == [30, 34, 30]
        twins[0].crop(-2)
        assert [len(twin.kept(0)) for twin in (cache, *twins)] == [15, 17, 15]


def test_all_that_waits_moves_with_its_layer(llama, prompt):
    """Drafts are stored from the passes that brought them, so these go along to another device."""
    with torch.no_grad(), laconic.compress(llama, SnapKV(keep=0.5)) as session:
        llama(prompt(1, 30))
        session.cache.activate_past_recording()
        llama(prompt(1, 4, seed=1), past_key_values=session.cache)
        drafts = copy.deepcopy(next(session.cache.compressed()).drafts)
    drafts.map(lambda x: x.to("meta"))
    assert [x.device.type for x in drafts.buffers()] == ["meta"] * 7  # keys, values, index; queries too in the pass


# -- what was stored whole -------------------------------------------------------------------------------------------
def test_a_question_that_was_held_is_taken_back(untouched, prompt):
    text, question = prompt(1, 60), prompt(1, 10, seed=3)
    with torch.no_grad(), laconic.compress(untouched, SnapKV(keep=0.3)) as session:
        untouched(text)
        kept, first = contents(session), []
        for _ in range(2):
            with session.hold():
                first.append(untouched(question, past_key_values=session.cache).logits)
            assert session.cache.get_seq_length() == 70
            session.cache.crop(-10)
            assert contents(session) == kept and session.cache.real == [60]
    torch.testing.assert_close(first[0], first[1])


@pytest.mark.parametrize("compressor", [SnapKV(keep=0.3), StreamingLLM(keep=0.3), laconic.AdaKV(keep=0.3)])
def test_a_crop_into_the_cut_is_refused_and_changes_nothing(untouched, prompt, compressor):
    with torch.no_grad(), laconic.compress(untouched, compressor) as session:
        untouched(prompt(1, 60))
        with session.hold():
            untouched(prompt(1, 5, seed=3), past_key_values=session.cache)
        kept = contents(session)
        with pytest.raises(SessionError, match=r"crop\(-6\): of the 65 tokens in this cache only the last 5"):
            session.cache.crop(-6)
        assert contents(session) == kept and session.cache.get_seq_length() == 65
        session.cache.crop(-5)
        assert session.cache.get_seq_length() == 60 and session.cache.real == [60]


def test_a_method_that_evicts_while_decoding_needs_to_be_told(untouched, prompt):
    with torch.no_grad(), laconic.compress(untouched, H2O(keep=0.3)) as session:
        untouched(prompt(1, 60))
        untouched(prompt(1, 1), past_key_values=session.cache)
        with pytest.raises(SessionError, match=r"only the last 0 .* call cache.activate_past_recording\(\)"):
            session.cache.crop(-1)


def test_padding_that_is_taken_back_was_not_counted(untouched, prompt):
    """A second turn, padded on the left, goes again."""
    mask = torch.ones(2, 36, dtype=torch.long)
    mask[0, 30:33] = 0
    with torch.no_grad(), laconic.compress(untouched, SnapKV(keep=0.4)) as session:
        untouched(prompt(2, 30))
        with session.hold():
            untouched(prompt(2, 6, seed=2), attention_mask=mask, past_key_values=session.cache)
        assert session.cache.real == [33, 36]
        session.cache.crop(-6)
        assert session.cache.real == [30, 30] and session.cache.layers[0].lengths.tolist() == [[12, 12]] * 2


def test_rows_of_different_lengths_roll_back(untouched, prompt):
    """Packed row by row: what the last tokens left is found by their numbers."""
    mask = torch.ones(2, 40, dtype=torch.long)
    mask[0, :7] = 0
    with torch.no_grad(), laconic.compress(untouched, KIVI(bits=4, group=8, residual=16)) as session:
        untouched(prompt(2, 40), attention_mask=mask)
        kept = contents(session)
        with session.hold():
            untouched(prompt(2, 3, seed=2), past_key_values=session.cache)
        session.cache.crop(-3)
        assert contents(session) == kept and session.cache.real == [33, 40]


def test_everything_is_taken_back(llama, prompt):
    with torch.no_grad(), laconic.compress(llama) as session:
        first = llama(prompt(1, 8)).logits
        session.cache.crop(-8)
        assert session.cache.get_seq_length() == 0 and session.cache.nbytes == 0
        again = llama(prompt(1, 8), past_key_values=session.cache).logits
    torch.testing.assert_close(first, again)


def test_a_dense_part_forgets_what_it_was_given_last():
    keys = torch.randn(1, 2, 5, 4)
    part = DensePart(keys, keys, {})
    part.drop(2)
    assert part.length == 3 and torch.equal(part.keys, keys[:, :, :3])
