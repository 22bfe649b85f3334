"""Holds within holds, in threads and tasks, and what inference mode stored."""

import asyncio
import copy

import pytest
import torch
from helpers.session_tools import untouched
from helpers.threads import in_threads

import laconic
from laconic import SnapKV

__all__ = ["untouched"]  # fixtures


# -- holds -------------------------------------------------------------------------------------------------------------
def test_leaving_the_inner_hold_does_not_end_the_outer_one(untouched, prompt):
    ids = prompt(1, 40)
    with laconic.compress(untouched, SnapKV(keep=0.5)) as session:
        untouched(ids)
        with session.hold():
            with session.hold():
                pass
            untouched(ids[:, :10], past_key_values=session.cache)
            assert session.stats.entries == [30.0] * 4
        untouched(ids[:, :10], past_key_values=session.cache)
        assert session.stats.entries == [30.0] * 4  # half of 60


def test_nested_holds_on_two_caches_end_one_by_one(untouched, prompt):
    """The inner hold is of a cache that another one has followed since the outer one began."""
    ids = prompt(1, 40)
    with laconic.compress(untouched, SnapKV(keep=0.5)) as session:
        untouched(ids)
        first = session.cache
        with session.hold():
            untouched(ids)
            second = session.cache
            with session.hold():
                pass
            in_threads(lambda: untouched(ids[:, :20], past_key_values=first))
            assert first.layers[0].stored == 40  # still held, in any thread
            in_threads(lambda: untouched(ids[:, :20], past_key_values=second))
            assert second.layers[0].stored == 30  # no longer held there: half of 60
        in_threads(lambda: untouched(ids[:, :20], past_key_values=first))
        assert first.layers[0].stored == 40  # half of 80


def test_a_hold_is_for_its_own_session(untouched, make_llama, prompt):
    other, ids = make_llama(seed=2), prompt(1, 20)
    with laconic.compress(untouched, SnapKV(keep=0.5)) as session, laconic.compress(other, SnapKV(keep=0.5)) as second:
        with session.hold():
            other(ids)
            untouched(ids)
        assert (session.stats.achieved, second.stats.achieved) == (1.0, 0.5)


def test_a_thread_that_answers_on_the_held_cache_is_held(untouched, prompt):
    """How answers are streamed with transformers' TextIteratorStreamer: generate() runs in a thread of its own."""
    ids = prompt(1, 40)
    with laconic.compress(untouched, SnapKV(keep=0.5)) as session:
        untouched(ids)
        cache = session.cache
        with session.hold():
            in_threads(lambda: untouched(ids[:, :20], past_key_values=cache))
            assert session.stats.entries == [40.0] * 4
        in_threads(lambda: untouched(ids[:, :20], past_key_values=cache))
        assert session.stats.entries == [40.0] * 4  # half of 80


def test_asynchronous_tasks_hold_apart(untouched, prompt):
    ids = prompt(1, 20)

    async def task(session, holds):
        def call():
            untouched(ids)
            return session.stats.entries[0]

        if not holds:
            return await asyncio.to_thread(torch.no_grad()(call))
        with session.hold():
            return await asyncio.to_thread(torch.no_grad()(call))

    async def both(session):
        return await asyncio.gather(task(session, True), task(session, False))

    with laconic.compress(untouched, SnapKV(keep=0.5)) as session:
        assert asyncio.run(both(session)) == [20.0, 10.0]


def test_holding_packs_what_waited_and_so_does_a_held_copy(untouched, prompt):
    packing = laconic.KIVI(bits=4, group=8, residual=8)
    with laconic.compress(untouched, SnapKV(keep=0.5), packing) as session:
        untouched(prompt(1, 80))
        waiting = copy.deepcopy(session.cache)
        with session.hold():
            assert not session.cache.unpacked and waiting.unpacked
            untouched(prompt(1, 4), past_key_values=waiting)
            assert not waiting.unpacked


def test_holding_leaves_what_a_failed_call_left(untouched, prompt):
    """Some layers have the tokens of the call, others do not: packing them would hide which."""

    def fail(*args):
        raise RuntimeError("out of memory")

    packing = laconic.KIVI(bits=4, group=8, residual=8)
    with laconic.compress(untouched, SnapKV(keep=0.5), packing) as session:
        untouched(prompt(1, 80))
        handle = untouched.model.layers[2].register_forward_pre_hook(fail)
        with pytest.raises(RuntimeError, match="out of memory"):
            untouched(prompt(1, 20), past_key_values=session.cache)
        handle.remove()
        with session.hold():
            assert session.cache.unfinished and session.cache.unpacked


# -- inference mode ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("ends", ["session", "hold", "fork"])
@pytest.mark.parametrize("drafts", [False, True], ids=["prompt", "drafts"])
def test_what_inference_mode_stored_is_settled_outside_it(untouched, prompt, ends, drafts):
    packing = laconic.KIVI(bits=4, group=8, residual=8)
    with laconic.compress(untouched, SnapKV(keep=0.5), packing) as session:
        with torch.inference_mode():
            untouched(prompt(1, 80))
            if drafts:
                session.cache.activate_past_recording()
                untouched(prompt(1, 4, seed=1), past_key_values=session.cache)
        cache = session.cache
        if ends == "hold":
            with session.hold():
                assert not cache.unpacked
        elif ends == "fork":
            cache.fork()
            assert not cache.unpacked
    assert not cache.unpacked and not any(layer.drafts.length for layer in cache.compressed())


def test_what_was_stored_outside_inference_mode_is_settled_outside_it(untouched, prompt):
    """So a later session may go on without inference mode."""
    packing = laconic.KIVI(bits=4, group=8, residual=8)
    with torch.no_grad(), laconic.compress(untouched, SnapKV(keep=0.5), packing) as session:
        untouched(prompt(1, 80))
        cache = session.cache
    assert not cache.unpacked and not any(x.is_inference() for layer in cache.compressed() for x in layer.buffers())
