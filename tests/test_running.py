"""Several calls at once in one session, figures of several caches, holds within holds."""

import copy
import threading
import time

import pytest
import torch
from helpers.session_tools import GREEDY, untouched
from helpers.threads import in_threads, meeting, staying
from helpers.vision_tools import inputs

import laconic
from laconic import AttentionMatching, DapQ, FastKV, KeyDiff, KVzip, KVzipPlus, SessionError, SnapKV
from laconic.cache import attention
from laconic.cache.cache import CompressedCache
from laconic.running import Running

__all__ = ["untouched"]  # fixtures


def ask(model, ids, **options):
    return model.generate(ids, attention_mask=torch.ones_like(ids), **(GREEDY | options))


def figures(session):
    """Everything in the figures but the times."""
    return {name: value for name, value in session.stats.as_dict().items() if not name.endswith("_seconds")}


# -- figures of several caches -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("copied", [copy.deepcopy, CompressedCache.fork])
def test_many_questions_on_copies_of_one_context(untouched, prompt, copied):
    ids = prompt(1, 100)
    with laconic.compress(untouched, KeyDiff(keep=0.3)) as session:
        untouched(ids)
        context, before = session.cache, figures(session)
        for i in range(3):
            with session.hold():
                ask(untouched, torch.cat([ids, prompt(1, 10, seed=i)], 1), past_key_values=copied(context))
            stats = session.stats
            assert (stats.tokens_in, stats.tokens_out, stats.entries) == (110, 5, [45.0] * 4)
            assert stats.prefill_flops_full == session.shape.prefill_flops([110] * 4)
            assert len(session.trace.events) == 4  # those of the context; a held question shortens nothing
        assert session.stats_of(context).tokens_in == 100 and session.stats_of(context).tokens_out == 0
        session.cache = context
        assert figures(session) == before


def test_two_conversations_in_turn(untouched, prompt):
    ids = prompt(1, 70)
    with laconic.compress(untouched, SnapKV(keep=0.5)) as session:
        answer = ask(untouched, ids[:, :20], max_new_tokens=3)
        first = session.cache
        ask(untouched, ids[:, 20:60])
        second, seconds = session.cache, session.stats.prefill_seconds
        ask(untouched, torch.cat([answer, ids[:, 60:]], 1), past_key_values=first, max_new_tokens=3)
        assert session.cache is first
        # 20, the third token of the answer, which was never fed, and 10; two tokens of each answer were decoded
        assert (session.stats.tokens_in, session.stats.tokens_out) == (31, 4)
        other = session.stats_of(second)
        assert (other.tokens_in, other.tokens_out, other.prefill_seconds) == (40, 5, seconds)
        assert [event.before for event in session.trace.events] == [20] * 4 + [23] * 4


def test_a_rewound_fork_has_the_figures_of_its_context(untouched, prompt):
    ids = prompt(1, 50)
    with laconic.compress(untouched, KeyDiff(keep=0.5)) as session:
        untouched(ids)
        before, fork = figures(session), session.cache.fork()
        for _ in range(2):
            with session.hold():
                ask(untouched, torch.cat([ids, ids[:, :5]], 1), past_key_values=fork)
            assert (session.stats.tokens_in, session.stats.tokens_out) == (55, 5)
            fork.rewind()
            assert figures(session) == before


def test_drafts_are_no_prompt(untouched, prompt):
    """Drafts that were rejected are taken back from the figures as they are from the cache."""
    ids = prompt(1, 40).repeat(1, 2)
    with laconic.compress(untouched) as session:
        out = ask(untouched, ids, max_new_tokens=12, prompt_lookup_num_tokens=4)
        assert out.shape[1] == 92
        assert session.stats.tokens_in == 80 and session.stats.tokens_out == session.cache.seen - 80
        assert session.stats.tokens_out in (11, 12)
        assert session.stats.stream == dict.fromkeys(range(4), 84)  # four drafts ran in the pass over the prompt


def test_guidance_decodes_on_two_caches(untouched, prompt):
    with laconic.compress(untouched) as session:
        out = ask(untouched, prompt(1, 30), guidance_scale=1.5, return_dict_in_generate=True)
        assert (session.stats.tokens_in, session.stats.tokens_out) == (1, 5)  # the latest call is the unconditional one
        conditional = session.stats_of(out.past_key_values)
        assert (conditional.tokens_in, conditional.tokens_out) == (30, 5)


def test_figures_go_with_the_cache_into_another_session(untouched, prompt):
    with laconic.compress(untouched, SnapKV(keep=0.5)) as session:
        answer = ask(untouched, prompt(1, 20))
        cache, spent = session.cache, session.stats.prefill_seconds
    with laconic.compress(untouched, KeyDiff(keep=0.25)) as session:
        ask(untouched, torch.cat([answer, prompt(1, 4)], 1), past_key_values=cache)
    assert (session.stats.tokens_in, session.stats.tokens_out) == (20 + 1 + 4, 10)
    assert session.stats.prefill_seconds > spent and session.stats.asked == pytest.approx(0.25, abs=0.03)


def test_a_reset_cache_starts_from_zero(untouched, prompt):
    with laconic.compress(untouched, SnapKV(keep=0.5)) as session:
        ask(untouched, prompt(1, 20))
        session.cache.reset()
        untouched(prompt(1, 12), past_key_values=session.cache)
        assert (session.stats.tokens_in, session.stats.tokens_out) == (12, 0)
        assert session.stats.stream == dict.fromkeys(range(4), 12) and len(session.trace.events) == 4


# -- calls at once -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "method",
    [
        None,
        SnapKV(keep=0.5),
        FastKV(keep=0.3, tsp_rate=0.3),
        DapQ(keep=0.4),
        KVzip(keep=0.4),
        KVzipPlus(keep=0.4),
        AttentionMatching(keep=0.4),
        laconic.H2O(keep=0.4),
        laconic.KIVI(bits=4),
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore:.* was asked to keep")
def test_threads_get_what_each_alone_gets(untouched, prompt, method):
    given = [prompt(1, 40), prompt(1, 57, seed=1)]
    with laconic.compress(untouched, *([] if method is None else [method])) as session:

        def work(ids):
            out = ask(untouched, ids)
            kept = [[session.kept(layer, head).tolist() for head in range(2)] for layer in range(4)]
            return out.tolist(), kept, figures(session), [(e.layer, e.before, e.after) for e in session.trace.events]

        alone = [in_threads(lambda ids=ids: work(ids))[0] for ids in given]
        for layer in (0, 2):
            with meeting(untouched.model.layers[layer], passes=3):
                together = in_threads(*[lambda ids=ids: work(ids) for ids in given])
            assert together == alone


@pytest.mark.parametrize(
    "method",
    [
        laconic.FastV(keep=0.4, layer=2),
        laconic.VisionZip(keep=0.3),
        laconic.ToMe(keep=0.3),
        laconic.EmbedLens(entry=3, skip="4+4.5", skip_target="visual"),
    ],
    ids=lambda method: method.name,
)
def test_images_in_threads(vlm, method):
    """They meet in the vision encoder, which generate() runs before it calls the model, and in the decoder."""
    given = [inputs([(3, 9)]), inputs([(8, 4)], seed=1)]
    with laconic.compress(vlm, method) as session:

        def work(one):
            out = vlm.generate(**one, **GREEDY)
            return out.tolist(), figures(session), [(e.layer, e.before, e.after) for e in session.trace.events]

        alone = [in_threads(lambda one=one: work(one))[0] for one in given]
        assert alone[0] != alone[1] and all(each[1]["visual_in"] == 144 for each in alone)
        encoder, decoder = vlm.model.vision_tower.encoder.layers, vlm.model.language_model.layers
        queried = encoder[-2].self_attn.k_proj  # its queries are known by then, and its keys are not
        with meeting(encoder[1], passes=1), meeting(queried, passes=1), meeting(decoder[4], passes=3):
            together = in_threads(*[lambda one=one: work(one) for one in given])
        assert together == alone
        assert session.stats.encoder_seconds > 0


def test_padded_rows_and_later_turns_in_threads(untouched, prompt):
    ids, mask = prompt(2, 30), torch.ones(2, 30, dtype=torch.long)
    mask[1, :9] = 0

    def padded():
        return [untouched.generate(ids, attention_mask=mask, **GREEDY).tolist() for _ in range(2)]

    def turns():
        first = ask(untouched, ids[:1], return_dict_in_generate=True)
        more = torch.cat([first.sequences, ids[1:, :7]], 1)
        return ask(untouched, more, past_key_values=first.past_key_values).tolist()

    with laconic.compress(untouched, SnapKV(keep=0.4)):
        alone = [padded(), turns()]
        with meeting(untouched.model.layers[1], passes=12):
            together = in_threads(padded, turns)
    assert together == alone


def test_one_thread_holds_and_the_other_compresses(untouched, prompt):
    ids = prompt(1, 40)
    with laconic.compress(untouched, SnapKV(keep=0.5)) as session:
        untouched(ids)
        context = session.cache

        def question():
            with session.hold():
                untouched(ids[:, :20], past_key_values=copy.deepcopy(context))
            return session.stats.entries

        def another():
            untouched(ids[:, :20])
            return session.stats.entries

        with meeting(untouched.model.layers[0], passes=1):
            assert in_threads(question, another) == [[40.0] * 4, [10.0] * 4]
        assert session.cache is context  # this thread has made no other call


def test_threads_ask_forks_of_one_context(untouched, prompt):
    ids, questions = prompt(1, 60), [prompt(1, 7, seed=1), prompt(1, 11, seed=2)]
    with laconic.compress(untouched, SnapKV(keep=0.5), laconic.KIVI(bits=4, group=8, residual=8)) as session:
        untouched(ids)
        context = session.cache

        def work(question):
            with session.hold():
                out = ask(untouched, torch.cat([ids, question], 1), past_key_values=context.fork())
            return out.tolist(), figures(session)

        with meeting(untouched.model.layers[2], passes=4):
            together = in_threads(*[lambda question=question: work(question) for question in questions])
        assert together == [work(question) for question in questions]


def test_a_thread_without_calls_sees_the_latest_of_all(untouched, prompt):
    with laconic.compress(untouched, SnapKV(keep=0.5)) as session:
        in_threads(lambda: untouched(prompt(1, 20)))
        assert session.stats.entries == [10.0] * 4


def test_one_cache_is_refused_to_two_calls_at_once(untouched, prompt):
    """Refused before the pass begins: the running call is not disturbed, and the refused one leaves nothing."""
    ids = prompt(1, 20)
    with laconic.compress(untouched, SnapKV(keep=0.5)) as session:
        untouched(ids)
        shared = session.cache
        with (
            staying(untouched.model.layers[1], lambda: untouched(ids[:, :4], past_key_values=shared)),
            pytest.raises(
                SessionError, match="another thread's call is running on this cache; give each call a cache of its"
            ),
        ):
            untouched(ids[:, :4], past_key_values=shared)
        assert shared.seen == 24 and not shared.unfinished
        untouched(ids[:, :4], past_key_values=shared)
        assert session.stats.tokens_in == 28


def test_a_call_that_fails_in_one_thread_leaves_the_other_alone(untouched, prompt):
    ids = prompt(1, 20)
    with laconic.compress(untouched, SnapKV(keep=0.5)) as session:
        alone = ask(untouched, ids)

        def fails():
            with pytest.raises(SessionError, match="padded on the right"):
                untouched(ids, attention_mask=torch.arange(20)[None] < 15)
            return ask(untouched, ids)

        with meeting(untouched.model.layers[0], passes=1):
            assert all(torch.equal(out, alone) for out in in_threads(lambda: ask(untouched, ids), fails))
        assert not session._running.others


def test_a_call_that_was_interrupted_does_not_count_as_running(untouched, prompt):
    def interrupt(*args):
        raise KeyboardInterrupt

    with laconic.compress(untouched, SnapKV(keep=0.5)) as session:
        handle = untouched.model.layers[1].register_forward_pre_hook(interrupt)
        with pytest.raises(KeyboardInterrupt):
            untouched(prompt(1, 20))
        handle.remove()
        with pytest.raises(SessionError, match="left half written"):
            untouched(prompt(1, 4), past_key_values=session.cache)
        untouched(prompt(1, 20))
        assert session._running.call is None and session.stats.entries == [10.0] * 4


def test_every_cache_of_a_session_is_packed_when_it_closes(untouched, prompt):
    with laconic.compress(untouched, SnapKV(keep=0.5), laconic.KIVI(bits=4, group=8, residual=8)) as session:
        untouched(prompt(1, 80))
        first = session.cache
        untouched(prompt(1, 60))
        assert first.unpacked and session.cache.unpacked
    assert not first.unpacked and not session.cache.unpacked


# -- sessions ----------------------------------------------------------------------------------------------------------
def test_of_threads_that_open_a_session_at_once_one_does(untouched, prompt, monkeypatch):
    """The others are refused by name, and the model is as it was when that one closes."""
    ids, barrier, opened = prompt(1, 20), threading.Barrier(3, timeout=60), []
    switched = attention.switched

    def slowly(stack):
        time.sleep(0.05)  # between looking whether the model is in a session and putting it into one
        return switched(stack)

    monkeypatch.setattr(attention, "switched", slowly)

    def work():
        barrier.wait()
        try:
            with laconic.compress(untouched, SnapKV(keep=0.5)) as session:
                untouched(ids)
                opened.append(session.stats.entries)
                barrier.wait()
        except SessionError as error:
            barrier.wait()
            return str(error)

    want = untouched(ids).logits
    told = in_threads(work, work, work)
    assert opened == [[10.0] * 4] and [text is None for text in told].count(True) == 1
    assert [text for text in told if text] == ["this model is in a laconic session already; close that one first."] * 2
    assert torch.equal(untouched(ids).logits, want)


def test_without_calls_nothing_is_known():
    running = Running()
    assert running.latest is None and running.call is None and running.end() is None and not running.others
    with pytest.raises(SessionError, match="nothing has run in this session yet"):
        running.last()
