"""Sessions that open, close and fail; calls that make no sense; figures."""

import threading
import warnings

import pytest
import torch
from helpers.session_tools import GREEDY, LOGITS, assert_same_state, state, tokenizer, untouched
from transformers import DynamicCache, StaticCache

import laconic
from laconic import FastKV, KNorm, Random, SessionError, SnapKV
from laconic.cache.cache import CompressedCache

__all__ = ["tokenizer", "untouched"]  # fixtures


# -- open, close, fail -----------------------------------------------------------------------------------------------
def test_second_session_on_the_model_is_refused(untouched, prompt):
    with laconic.compress(untouched, SnapKV(keep=0.5)) as session:
        with pytest.raises(SessionError, match="in a laconic session already"), laconic.compress(untouched, KNorm(keep=0.5)):
            pass
        with pytest.raises(SessionError, match="in a laconic session already"), session:
            pass
        untouched(prompt(1, 20))  # the first one still works
        assert session.stats.achieved == 0.5


def test_a_session_can_be_opened_again(untouched, prompt):
    session = laconic.compress(untouched, SnapKV(keep=0.5))
    for _ in range(2):
        with session:
            untouched(prompt(1, 20))
        assert session.stats.achieved == 0.5


def test_two_models_at_once(untouched, make_llama, prompt):
    other, ids = make_llama(seed=3), prompt(1, 20)
    with laconic.compress(untouched, SnapKV(keep=0.5)) as a, laconic.compress(other, KNorm(keep=0.25)) as b:
        untouched(ids)
        other(ids)
        untouched(ids)
    assert (a.stats.achieved, b.stats.achieved) == (0.5, 0.25)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_exceptions_inside_restore_everything(untouched, prompt, error):
    with pytest.raises(error), laconic.compress(untouched, FastKV(keep=0.2)):
        untouched(prompt(1, 20))
        raise error


class Breaks(SnapKV):
    """Raises from score() at one layer."""

    error = ZeroDivisionError

    def score(self, obs):
        if obs.layer == 2 and self.error is not None:
            raise self.error
        return super().score(obs)


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_exceptions_inside_a_forward_restore_everything(untouched, prompt, error):
    method = Breaks(keep=0.5)
    method.error = error
    with pytest.raises(error), laconic.compress(untouched, method):
        untouched.generate(prompt(1, 20), **GREEDY)


def test_a_half_written_cache_is_refused_and_a_new_one_works(untouched, prompt):
    method, ids = Breaks(keep=0.5), prompt(1, 20)
    with laconic.compress(untouched, method) as session:
        with pytest.raises(ZeroDivisionError):
            untouched(ids)
        with pytest.raises(SessionError, match=r"left half written .* start again without past_key_values"):
            untouched(ids, past_key_values=session.cache)
        method.error = None
        untouched(ids)
        assert session.stats.entries == [10.0] * 4


def test_a_call_that_fails_in_a_later_turn_spoils_the_cache(untouched, prompt):
    method, ids = Breaks(keep=0.5), prompt(1, 20)
    method.error = None
    with laconic.compress(untouched, method) as session:
        untouched(ids)
        method.error = ZeroDivisionError
        with pytest.raises(ZeroDivisionError):
            untouched(ids, past_key_values=session.cache)
        method.error = None
        with pytest.raises(SessionError, match="left half written"):
            untouched(ids, past_key_values=session.cache)


def test_a_failing_open_leaves_nothing(untouched, monkeypatch):
    session = laconic.compress(untouched, FastKV(keep=0.2))
    monkeypatch.setattr("laconic.stream.seam.StreamSeam.install", lambda *a: (_ for _ in ()).throw(RuntimeError("no")))
    with pytest.raises(RuntimeError, match="no"), session:
        pass


def test_eager_is_restored(make_llama, prompt):
    model = make_llama(implementation="eager")
    before = state(model)
    with laconic.compress(model, SnapKV(keep=0.5)):
        model(prompt(1, 20))
    assert_same_state(model, before)


def test_threads_with_their_own_models(make_llama, prompt):
    """Nothing is shared between sessions but the registered name."""
    found, ids = {}, prompt(1, 30)
    models = {seed: make_llama(seed=seed) for seed in (1, 2)}

    def work(seed):
        model = models[seed]
        with laconic.compress(model, SnapKV(keep=0.5)):
            found[seed] = model.generate(ids, **GREEDY)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed in (1, 2):
        with laconic.compress(models[seed], SnapKV(keep=0.5)):
            assert torch.equal(models[seed].generate(ids, **GREEDY), found[seed])


# -- calls that make no sense ----------------------------------------------------------------------------------------
def filled(model, ids):
    return model(ids, use_cache=True, past_key_values=DynamicCache()).past_key_values


class Foreign(DynamicCache):
    """Somebody's own cache."""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"use_cache": False}, "use_cache=False stores nothing"),
        ({"past_key_values": Foreign()}, "past_key_values is a Foreign that holds 0 tokens"),
        ({"past_key_values": ((1, 2),)}, "past_key_values is a tuple that is no transformers cache"),
        ({"attention_mask": torch.ones(1, 1, 20, 20)}, r"pass a 2-D attention_mask \[batch, tokens\] or none"),
        ({"attention_mask": torch.arange(20)[None] < 15}, "padded on the right; set tokenizer.padding_side = 'left'"),
        ({"attention_mask": torch.ones(1, 12)}, "attention_mask covers 12 tokens"),
        ({"output_attentions": True}, "output_attentions is not available"),
    ],
    ids=["no-cache", "foreign-cache", "tuple", "4-d", "right-padded", "short-mask", "attentions"],
)
def test_refused_calls(untouched, prompt, arguments, message):
    with laconic.compress(untouched, SnapKV(keep=0.5)), pytest.raises(SessionError, match=message):
        untouched(prompt(1, 20), **arguments)


def test_refused_caches(make_llama, prompt):
    untouched, ids = make_llama(), prompt(1, 20)
    dynamic = filled(untouched, ids)
    with laconic.compress(untouched, SnapKV(keep=0.5)) as session:
        with pytest.raises(SessionError, match="DynamicCache that holds 20 tokens"):
            untouched(ids, past_key_values=dynamic)
        with pytest.raises(SessionError, match="a StaticCache"):
            untouched(ids, past_key_values=StaticCache(config=untouched.config, max_cache_len=64))
        with pytest.raises(SessionError, match="a StaticCache"):
            untouched.generate(ids, cache_implementation="static", **GREEDY)
        with pytest.raises(SessionError, match="use_cache=False stores nothing"):
            untouched.generate(ids, use_cache=False, **GREEDY)
        untouched(ids)
        other = make_llama(layers=2)
        with laconic.compress(other), pytest.raises(SessionError, match="4 layers, the model 2: it belongs to another"):
            other(ids, past_key_values=session.cache)
        with pytest.raises(SessionError, match=r"batch of 2.* holds 1"):
            untouched(prompt(2, 4), past_key_values=session.cache)


def test_offloaded_cache_is_refused(untouched, prompt):
    try:
        cache = DynamicCache(offloading=True)
    except (RuntimeError, NotImplementedError) as error:
        pytest.skip(f"no offloading on this machine: {error}")
    with laconic.compress(untouched, SnapKV(keep=0.5)), pytest.raises(SessionError, match="offload"):
        untouched(prompt(1, 20), past_key_values=cache)


def test_empty_prompts(untouched):
    with laconic.compress(untouched, SnapKV(keep=0.5)):
        with pytest.raises(SessionError, match="the prompt is empty"):
            untouched(torch.zeros(1, 0, dtype=torch.long))
        with pytest.raises(SessionError, match="without input_ids or inputs_embeds"):
            untouched()


def test_the_inner_decoder_alone_is_refused(untouched, prompt):
    ids = prompt(1, 20)
    with laconic.compress(untouched, SnapKV(keep=0.5)) as session:
        for _ in range(2):  # before and after a proper call
            with pytest.raises(SessionError, match="call the model that was given to compress"):
                untouched.model(ids)
            untouched(ids)
        assert session.stats.achieved == 0.5


def test_a_compressed_cache_outside_of_a_session(untouched, prompt):
    with laconic.compress(untouched, SnapKV(keep=0.5)) as session:
        untouched(prompt(1, 20))
    with pytest.raises(SessionError, match=r"works inside `with laconic\.compress"):
        untouched(prompt(1, 4), past_key_values=session.cache)


def test_methods_that_do_not_go_together(untouched):
    with pytest.raises(laconic.ConflictError, match=r"snapkv and knorm both claim the seam 'cache\.entries'"):
        laconic.compress(untouched, SnapKV(keep=0.5), KNorm(keep=0.5))


# -- figures ---------------------------------------------------------------------------------------------------------
def test_stats(untouched, prompt):
    with laconic.compress(untouched, SnapKV(keep=0.25, window=4)) as session:
        assert session.stats.tokens_in == 0 and session.stats.kv_bytes == 0
        untouched.generate(prompt(1, 40), **GREEDY)
    stats = session.stats
    per_entry = 4 * 2 * 2 * 8 * 4  # layers, keys and values, KV heads, head_dim, fp32
    assert (stats.tokens_in, stats.tokens_out) == (40, 5)
    assert stats.entries == [15.0] * 4 and stats.layers == [0, 1, 2, 3]
    assert stats.achieved == pytest.approx(15 / 45) and stats.asked == 0.25
    assert stats.kv_bytes == 15 * per_entry and stats.kv_bytes_full == 45 * per_entry
    assert stats.kv_bytes < stats.kv_bytes_allocated
    assert 0 < stats.compress_seconds < stats.prefill_seconds and stats.decode_seconds > 0
    assert stats.stream == {0: 40, 1: 40, 2: 40, 3: 40}
    assert stats.prefill_flops == stats.prefill_flops_full > 0 and stats.decode_flops > 0
    assert set(stats.as_dict()) >= {"tokens_in", "tokens_out", "kv_bytes", "kv_bytes_full", "achieved", "asked"}


def test_stats_of_a_shortened_stream(untouched, prompt):
    with laconic.compress(untouched, FastKV(keep=0.1, tsp_rate=0.25)) as session:
        untouched(prompt(1, 40))
    stats = session.stats
    assert stats.stream == {0: 40, 1: 40, 2: 10, 3: 10}
    assert stats.prefill_flops < 0.8 * stats.prefill_flops_full


def test_stats_of_a_padded_batch(untouched, prompt):
    ids, mask = prompt(2, 40), torch.ones(2, 40, dtype=torch.long)
    mask[1, :20] = 0
    with laconic.compress(untouched, SnapKV(keep=0.25, window=4)) as session:
        untouched(ids, attention_mask=mask)
    assert session.stats.tokens_in == 30 and session.stats.entries == [7.5] * 4
    assert session.stats.achieved == session.stats.asked == 0.25


def test_trace(untouched, prompt):
    with laconic.compress(untouched, FastKV(keep=0.1, tsp_rate=0.25)) as session:
        untouched(prompt(1, 40))
    events = session.trace.events
    assert [(e.layer, e.method, e.before, e.after) for e in events] == [
        (0, "fastkv", 40, 4),
        (1, "fastkv", 40, 4),
        (2, "fastkv", 10, 4),
        (3, "fastkv", 10, 4),
    ]
    assert [e.stream is None for e in events] == [True, False, True, True]
    assert session.trace.removed() == {0: 36, 1: 36, 2: 6, 3: 6}


def test_kept_before_any_call(untouched):
    with laconic.compress(untouched, SnapKV(keep=0.5)) as session, pytest.raises(SessionError, match="nothing has run"):
        session.kept(0)


@pytest.mark.parametrize("tokens", [1, 2, 5, 9, 10, 40])
@pytest.mark.parametrize(
    "name", ["snapkv", "pyramidkv", "adakv", "fastkv", "h2o", "tova", "streaming_llm", "expected_attention"]
)
def test_a_context_shorter_than_the_window(untouched, prompt, name, tokens):
    """The budget holds all the same; a prompt that fits into it is stored whole."""
    ids = prompt(1, 10)
    options = {"tsp_rate": 1.0} if name == "fastkv" else {}
    method = laconic.create_method(name, tokens=tokens, **options)
    with laconic.compress(untouched, method) as session:
        untouched(ids)
        total = sum(len(session.kept(layer, head)) for layer in range(4) for head in range(2))
        assert total == 8 * min(tokens, 10)
        assert 9 in session.kept(0).tolist() or name in ("expected_attention", "adakv") or tokens == 1
        untouched(prompt(1, 1), past_key_values=session.cache)


def test_a_missed_budget_is_said_once_and_points_at_the_call(untouched, prompt):
    ids = prompt(1, 40)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with laconic.compress(untouched, FastKV(keep=0.5, tsp_rate=0.2)):
            untouched.generate(ids, **GREEDY)
            untouched(ids)
    assert [str(w.message) for w in caught] == ["fastkv was asked to keep 0.5000 of the tokens and kept 0.3500."]
    assert caught[0].filename == __file__


def test_a_met_budget_is_silent(untouched, prompt):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with laconic.compress(untouched, Random(keep=0.33)):
            untouched.generate(prompt(1, 37), prefill_chunk_size=10, **GREEDY)


def test_the_cache_of_the_model_output_is_the_sessions(untouched, prompt):
    with laconic.compress(untouched, SnapKV(keep=0.5)) as session:
        out = untouched.generate(prompt(1, 20), **LOGITS)
        assert out.past_key_values is session.cache and isinstance(session.cache, CompressedCache)
