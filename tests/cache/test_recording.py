"""A replayed pass stores what the pass itself would have, and says the same, under every cache method of the catalogue."""

import pytest
import torch
from helpers.method_tools import METHODS, method

import laconic
from laconic.cache.recording import RecordingCache, needs, recorded, repeatable, replaying
from laconic.errors import SessionError

pytestmark = pytest.mark.filterwarnings("ignore:(kivi|gear) was asked to keep")
N = 60


def read(model, ids, name, keep, recording=None):
    """One prompt and a held question under a method -> session, logits of both."""
    with torch.no_grad(), laconic.compress(model, method(name, keep=keep)) as session:
        if recording is None:
            first = model(ids).logits[:, -1:]
        else:
            with replaying(session.stack, recording):
                first = model(ids).logits[:, -1:]
        stats = session.stats
        with session.hold():
            then = model(ids[:, :5], past_key_values=session.cache).logits
    return session, torch.cat([first, then], 1), stats


def attached(model, made):
    laconic.compress(model, made)
    return made


def record(model, ids, *methods):
    with torch.no_grad(), laconic.compress(model, *methods) as session:
        cache = RecordingCache(session.stack.config)
        with recorded(session.stack, cache) as recording:
            model(ids, past_key_values=cache)
        with session.hold():  # not part of the recording
            model(ids[:, :3], past_key_values=cache)
    return recording


@pytest.mark.parametrize("keep", [0.5, 0.2])
@pytest.mark.parametrize("name", METHODS)
def test_a_replay_is_the_plain_run(llama, prompt, name, keep):
    made = method(name, keep=keep)
    if not repeatable(made):
        pytest.skip("it changes what runs")
    ids = prompt(1, N)
    recording = record(llama, ids, *([method(name, keep=0.3)] if needs(attached(llama, made), ids) else []))
    plain, wanted, figures = read(llama, ids, name, keep)
    again, logits, replayed = read(llama, ids, name, keep, recording)
    for layer in range(4):
        for head in range(2):
            assert again.kept(layer, head).tolist() == plain.kept(layer, head).tolist()
    torch.testing.assert_close(logits, wanted, atol=1e-5, rtol=1e-5)
    for what in ("entries", "kv_bytes", "kv_bytes_full", "prefill_flops", "achieved", "tokens_in"):
        assert getattr(replayed, what) == getattr(figures, what), what


def test_most_methods_are_served_by_recordings():
    plain = {name for name in METHODS if not repeatable(method(name, keep=0.5))}
    assert plain == {"fastkv", "zipvl"}


def test_methods_that_run_the_same_tokens_share_a_recording(llama, prompt):
    ids = prompt(1, N)
    found = {name: needs(attached(llama, method(name, keep=0.5)), ids) for name in METHODS}
    assert not found["snapkv"] and found["dapq"] and found["kvzip"] and found["dapq"] != found["kvzip"]
    assert found["kvzip"] == needs(attached(llama, laconic.create_method("kvzip:over=head", keep=0.1)), ids)
    assert found["kvzip"][:2] == found["kvzip_plus"][:2] and found["kvzip_plus"][2] and not found["kvzip"][2]
    assert needs(method("kvzip", keep=1.0), ids) == ()
    chunks = [needs(attached(llama, laconic.create_method(f"kvzip:chunk={n}", keep=0.5)), ids) for n in (10, 20, N)]
    assert len(set(chunks)) == 3 and chunks[2] == found["kvzip"]  # what the repetition sees of the prompt differs


def replaying_call(model, session, recording, ids):
    with replaying(session.stack, recording):
        model(ids)


def test_the_model_is_as_it_was(llama, prompt):
    layers, ids = llama.model.layers, prompt(1, N)
    hooks = dict(layers[-1]._forward_hooks)
    recording = record(llama, ids)
    assert len(recording.passes) == 4 and recording.passes[0].queries.shape[2] == N
    with torch.no_grad(), laconic.compress(llama) as session, pytest.raises(SessionError, match="60 tokens"):
        replaying_call(llama, session, recording, ids[:, 1:])
    assert llama.model.layers is layers and dict(layers[-1]._forward_hooks) == hooks


def test_a_method_that_narrows_the_prefill_is_refused(llama, prompt):
    ids = prompt(1, N)
    recording = record(llama, ids)
    with pytest.raises(SessionError, match="zipvl lets only some tokens attend"):
        read(llama, ids, "zipvl", 0.3, recording)
