"""A session around the ways people call a model: what comes out, what is fed, what is said, and what is left behind."""

import copy
import io
import threading
import warnings
from contextlib import redirect_stdout

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import DynamicCache, LlamaModel, PreTrainedTokenizerFast, StaticCache, TextStreamer, pipeline

import laconic
from laconic import AdaKV, FastKV, KNorm, Random, SessionError, SnapKV, StreamingLLM
from laconic.cache.cache import CompressedCache

GREEDY = {"max_new_tokens": 6, "do_sample": False}
LOGITS = GREEDY | {"output_logits": True, "return_dict_in_generate": True}


@pytest.fixture(scope="module")
def tokenizer():
    vocab = {f"w{i}": i for i in range(97)}
    words = Tokenizer(WordLevel(vocab, unk_token="w0"))
    words.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="w0", padding_side="left")


def state(model):
    """Everything that a session might leave behind on a model."""
    modules = {
        name: (
            sorted(module.__dict__),
            len(module._forward_pre_hooks),
            len(module._forward_hooks),
            len(module._forward_hooks_with_kwargs),
            len(module._forward_hooks_always_called),
            type(module),
        )
        for name, module in model.named_modules()
    }
    weights = {name: x.clone() for name, x in model.state_dict().items()}
    return modules, copy.deepcopy(model.config.to_dict()), model.config._attn_implementation, weights


def assert_same_state(model, before):
    modules, config, implementation, weights = state(model)
    assert (modules, config, implementation) == before[:3]
    assert all(torch.equal(weights[name], x) for name, x in before[3].items())


@pytest.fixture
def untouched(llama, prompt):
    """Fails a test that leaves anything on the model."""
    ids = prompt(1, 12, seed=9)
    before, logits = state(llama), llama(ids).logits
    yield llama
    assert_same_state(llama, before)
    assert torch.equal(llama(ids).logits, logits)


class Fed:
    """Counts the tokens that a model is fed."""

    def __init__(self, model):
        self.counts = []
        self.handle = model.model.embed_tokens.register_forward_pre_hook(lambda m, a: self.counts.append(a[0].shape[1]))


# -- ways to call ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "options",
    [
        GREEDY,
        {"max_new_tokens": 6, "do_sample": True, "top_k": 20},
        {"max_new_tokens": 6, "do_sample": True, "num_return_sequences": 3},
        GREEDY | {"num_beams": 3},
        GREEDY | {"num_beams": 4, "num_return_sequences": 2},
        GREEDY | {"prefill_chunk_size": 8},
        GREEDY | {"prompt_lookup_num_tokens": 3},
        GREEDY | {"repetition_penalty": 1.3, "min_new_tokens": 3},
    ],
    ids=["greedy", "sampling", "several", "beams", "several-beams", "chunks", "prompt-lookup", "penalty"],
)
@pytest.mark.parametrize("rows", [1, 2])
def test_neutral_generate_equals_stock(untouched, prompt, options, rows):
    if rows == 2 and "prompt_lookup_num_tokens" in options:
        pytest.skip("transformers: assisted decoding has no batches")
    ids = prompt(rows, 30)
    torch.manual_seed(5)
    stock = untouched.generate(ids, **options)
    torch.manual_seed(5)
    with laconic.compress(untouched, SnapKV(keep=1.0)):
        assert torch.equal(untouched.generate(ids, **options), stock)


def test_no_method_at_all_stores_everything(untouched, prompt):
    ids = prompt(1, 30)
    stock = untouched.generate(ids, **GREEDY)
    with laconic.compress(untouched) as session:
        assert torch.equal(untouched.generate(ids, **GREEDY), stock)
    assert session.stats.achieved == 1.0


@pytest.mark.parametrize("method", [SnapKV(keep=0.3), AdaKV(keep=0.3), FastKV(keep=0.2)])
def test_beams_follow_their_own_tokens(untouched, prompt, method):
    """The score of a beam is what a single continuation over the same compressed prompt gives."""
    ids = prompt(1, 40)
    with laconic.compress(untouched, method) as session:
        out = untouched.generate(
            ids, **GREEDY, num_beams=3, num_return_sequences=3, output_scores=True, return_dict_in_generate=True
        )
        for sequence, score in zip(out.sequences, out.sequences_scores, strict=True):
            first = untouched(ids).logits[:, -1:]
            rest = [untouched(token.view(1, 1), past_key_values=session.cache).logits for token in sequence[40:-1]]
            logits = torch.cat([first, *rest], 1).log_softmax(-1)[0]
            total = logits.gather(1, sequence[40:, None]).sum()
            assert total / len(sequence[40:]) == pytest.approx(score.item(), abs=1e-4)


def test_assisted_decoding(untouched, make_llama, prompt):
    assistant, ids = make_llama(layers=1, seed=1), prompt(1, 30)
    stock = untouched.generate(ids, **GREEDY, assistant_model=assistant)
    with laconic.compress(untouched, SnapKV(keep=1.0)):
        assert torch.equal(untouched.generate(ids, **GREEDY, assistant_model=assistant), stock)
    with laconic.compress(untouched, SnapKV(keep=0.3)), pytest.raises(SessionError, match="cannot be rolled back"):
        untouched.generate(ids, **GREEDY, assistant_model=assistant)


def test_streamer_and_pipeline(untouched, tokenizer, prompt):
    text = " ".join(f"w{i}" for i in prompt(1, 30)[0].tolist())
    run = pipeline("text-generation", model=untouched, tokenizer=tokenizer, device="cpu")
    stock = run(text, **GREEDY)
    ids = tokenizer(text, return_tensors="pt")["input_ids"]
    with laconic.compress(untouched, SnapKV(keep=1.0)):
        assert run(text, **GREEDY) == stock
        with redirect_stdout(io.StringIO()) as printed:
            untouched.generate(ids, **GREEDY, streamer=TextStreamer(tokenizer, skip_prompt=True))
    words = printed.getvalue().split()
    assert len(words) == 6 and stock[0]["generated_text"].endswith(" ".join(words[1:]))  # glues the first to the prompt
    with laconic.compress(untouched, SnapKV(keep=0.3)) as session:
        run([text, text[:80]], batch_size=2, **GREEDY)
    assert session.stats.achieved < 0.5


def test_prefill_logits_are_exact_at_any_budget(untouched, prompt):
    """Entries are evicted after the layer's attention, so the prompt itself sees everything."""
    ids = prompt(2, 30)
    stock = untouched(ids).logits
    with laconic.compress(untouched, SnapKV(keep=0.1)):
        torch.testing.assert_close(untouched(ids).logits, stock, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(untouched(input_ids=ids, logits_to_keep=1).logits, stock[:, -1:], rtol=1e-5, atol=1e-5)
        embeds = untouched.get_input_embeddings()(ids)
        torch.testing.assert_close(untouched(inputs_embeds=embeds).logits, stock, rtol=1e-5, atol=1e-5)
        out = untouched(ids, torch.ones_like(ids), return_dict=False)
        torch.testing.assert_close(out[0], stock, rtol=1e-5, atol=1e-5)


def test_hidden_states(llama, prompt):
    ids = prompt(2, 30)  # transformers leaves its own recording hooks on the model here
    stock = llama(ids, output_hidden_states=True).hidden_states
    with laconic.compress(llama, SnapKV(keep=0.1)):
        ours = llama(ids, output_hidden_states=True).hidden_states
    assert len(ours) == len(stock) == 5
    for a, b in zip(ours, stock, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_base_model_without_a_head(llama, prompt):
    model = LlamaModel(llama.config).eval()
    ids = prompt(1, 20)
    stock = model(ids).last_hidden_state
    with laconic.compress(model, SnapKV(keep=0.5)) as session:
        torch.testing.assert_close(model(ids).last_hidden_state, stock, rtol=1e-5, atol=1e-5)
    assert session.stats.achieved == 0.5


@pytest.mark.parametrize("method", [SnapKV(keep=0.3), AdaKV(keep=0.3), StreamingLLM(tokens=8)])
def test_prefill_chunk_size_is_the_same_as_chunks_by_hand(untouched, prompt, method):
    ids = prompt(1, 40)
    with laconic.compress(untouched, method) as session:
        untouched.generate(ids, max_new_tokens=1, do_sample=False, prefill_chunk_size=16)
        chunked = [session.kept(layer, 1).tolist() for layer in range(4)]
        untouched(ids[:, :16])
        untouched(ids[:, 16:32], past_key_values=session.cache)
        untouched(ids[:, 32:], past_key_values=session.cache)
        assert [session.kept(layer, 1).tolist() for layer in range(4)] == chunked
        assert session.stats.tokens_in == 40
        assert session.stats.achieved == pytest.approx(session.stats.asked, abs=1 / 40)


def test_chunks_of_nothing_but_padding(untouched, prompt):
    """Both rows start with 20 padding tokens, so two chunks hold no token at all."""
    ids, mask = prompt(2, 50), torch.ones(2, 50, dtype=torch.long)
    mask[:, :20] = 0
    methods = [
        SnapKV(keep=0.4, window=4),
        AdaKV(keep=0.4, scorer="snapkv:window=4"),
        KNorm(keep=0.4),
        FastKV(keep=0.4, tsp_rate=0.4),
    ]
    for method in methods:
        with laconic.compress(untouched, method) as session:
            padded = untouched.generate(ids, attention_mask=mask, prefill_chunk_size=10, **GREEDY)
            assert session.stats.tokens_in == 30
            alone = untouched.generate(ids[:, 20:], prefill_chunk_size=10, **GREEDY)
            assert torch.equal(padded[:, 50:], alone[:, 30:])
            mask[0] = 1  # and now one row only
            mixed = untouched.generate(ids, attention_mask=mask, prefill_chunk_size=10, **GREEDY)
            assert torch.equal(mixed[1, 50:], alone[1, 30:])
            mask[0, :20] = 0


@pytest.mark.filterwarnings("ignore:.* was asked to keep")
@pytest.mark.parametrize("name", [entry.name for entry in laconic.methods() if entry.site == "cache"])
def test_chunks_of_a_padded_batch_keep_what_a_single_sequence_keeps(untouched, prompt, name):
    """Filler between stored and new entries once changed who is whose neighbour when scores are pooled."""
    ids, mask = prompt(2, 50), torch.ones(2, 50, dtype=torch.long)
    mask[1, :20] = 0
    options = {"max_new_tokens": 1, "do_sample": False, "prefill_chunk_size": 10}
    with laconic.compress(untouched, laconic.create(name, keep=0.4)) as session:
        untouched.generate(ids, attention_mask=mask, **options)
        batch = [(session.kept(layer, head, 1) - 20).tolist() for layer in range(4) for head in range(2)]
        untouched.generate(ids[1:, 20:], **options)
        assert [session.kept(layer, head).tolist() for layer in range(4) for head in range(2)] == batch


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_grad_modes(untouched, prompt, mode):
    ids = prompt(1, 30)
    stock = untouched.generate(ids, **GREEDY)
    with laconic.compress(untouched, SnapKV(keep=1.0)), mode():
        assert torch.equal(untouched.generate(ids, **GREEDY), stock)


def test_gradients_flow_through_a_neutral_session(make_llama, prompt):
    model, ids = make_llama().requires_grad_(True).train(), prompt(1, 20)

    def gradients():
        model.zero_grad()
        model(ids, labels=ids).loss.backward()
        return [p.grad.clone() for p in model.parameters()]

    stock = gradients()
    with laconic.compress(model, SnapKV(keep=1.0)):
        ours = gradients()
    for a, b in zip(ours, stock, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_attention_dropout_is_refused(make_llama, prompt):
    model = make_llama().train()
    for layer in model.model.layers:
        layer.self_attn.attention_dropout = 0.1
    with laconic.compress(model, SnapKV(keep=0.5)), pytest.raises(SessionError, match=r"dropout .*model\.eval\(\)"):
        model(prompt(1, 20))


def test_gradient_checkpointing_is_refused(make_llama, prompt):
    model = make_llama().requires_grad_(True).train()
    model.gradient_checkpointing_enable()
    with laconic.compress(model, SnapKV(keep=0.5)), pytest.raises(SessionError, match="Gradient checkpointing drops"):
        model(prompt(1, 20))


def test_a_model_that_shares_the_configuration_object(make_llama, prompt):
    """It would run without masks: refused rather than wrong."""
    model, ids = make_llama(), prompt(1, 20)
    other = type(model)(model.config).eval()
    with laconic.compress(model, SnapKV(keep=0.5)):
        with pytest.raises(SessionError, match="another model shares this model's configuration object"):
            other(ids)
        model(ids)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(make_llama, prompt, dtype):
    """A neutral session is as near to fp32 as the stock model is."""
    model, ids = make_llama(), prompt(2, 60)
    exact = model(ids).logits
    model.to(dtype)
    stock = (model(ids).logits.float() - exact).abs().mean()
    with laconic.compress(model, SnapKV(keep=1.0)) as session:
        ours = (model(ids).logits.float() - exact).abs().mean()
        again = model(ids[:, :1], past_key_values=session.cache).logits
    assert ours < 1.3 * stock
    assert again.dtype == dtype
    with laconic.compress(model, SnapKV(keep=0.3)) as session:
        model.generate(ids, **GREEDY)
    assert session.stats.kv_bytes * 2 < session.stats.kv_bytes_full


# -- turns -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("keep", [1.0, 0.4])
def test_three_turns_feed_only_new_tokens(untouched, prompt, keep):
    ids = prompt(1, 30)
    fed = Fed(untouched)
    try:
        with laconic.compress(untouched, SnapKV(keep=keep, window=4)) as session:
            first = untouched.generate(ids, **GREEDY)
            assert fed.counts == [30, 1, 1, 1, 1, 1]
            for seed, length in ((1, 7), (2, 5)):
                fed.counts.clear()
                ids = torch.cat([first, prompt(1, length, seed=seed)], 1)
                second = untouched.generate(ids, past_key_values=session.cache, **LOGITS)
                assert fed.counts == [length + 1, 1, 1, 1, 1, 1]  # the last answer's last token was not in the cache
                first = second.sequences
            assert session.cache.get_seq_length() == first.shape[1] - 1
            assert session.stats.tokens_in + session.stats.tokens_out == first.shape[1] - 1
    finally:
        fed.handle.remove()
    if keep == 1.0:
        stock = untouched(first).logits[:, -7:-1]
        torch.testing.assert_close(torch.stack(second.logits, 1), stock, rtol=1e-5, atol=1e-5)


def test_a_new_call_starts_a_new_cache(untouched, prompt):
    with laconic.compress(untouched, SnapKV(keep=0.5)) as session:
        untouched.generate(prompt(1, 30), **GREEDY)
        old = session.cache
        untouched.generate(prompt(1, 20), **GREEDY)
        assert session.cache is not old
        assert session.stats.tokens_in == 20 and session.stats.tokens_out == 5
        assert len(session.trace.events) == 4


def test_a_later_session_takes_over_a_cache(untouched, prompt):
    ids = prompt(1, 30)
    with laconic.compress(untouched, SnapKV(keep=0.5)) as session:
        untouched(ids)
    cache = session.cache
    with laconic.compress(untouched) as later:
        untouched(prompt(1, 4, seed=1), past_key_values=cache)
    assert later.cache is cache
    assert later.stats.entries == [19.0] * 4


def test_hold_keeps_a_question_whole(untouched, prompt):
    with laconic.compress(untouched, SnapKV(keep=0.25, window=4)) as session:
        untouched(prompt(1, 40))
        with session.hold():
            untouched(prompt(1, 12, seed=1), past_key_values=session.cache)
        assert session.stats.entries == [22.0] * 4
        assert session.kept(0)[-12:].tolist() == list(range(40, 52))
        untouched(prompt(1, 8, seed=1), past_key_values=session.cache)
        assert session.stats.entries == [15.0] * 4


def test_hold_ends_after_an_exception(untouched, prompt):
    with laconic.compress(untouched, SnapKV(keep=0.25)) as session:
        with pytest.raises(ZeroDivisionError), session.hold():
            raise ZeroDivisionError
        untouched(prompt(1, 40))
        assert session.stats.entries == [10.0] * 4


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

    def score(self, seen):
        if seen.layer == 2 and self.error is not None:
            raise self.error
        return super().score(seen)


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
    monkeypatch.setattr("laconic.tokens.seam.install", lambda *a: (_ for _ in ()).throw(RuntimeError("no")))
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
    with pytest.raises(TypeError, match=r"takes methods such as SnapKV\(keep=0.1\); got 'snapkv'"):
        laconic.compress(untouched, "snapkv")
    with pytest.raises(TypeError, match="got <class"):
        laconic.compress(untouched, SnapKV)


# -- figures ---------------------------------------------------------------------------------------------------------
def test_stats(untouched, prompt):
    with laconic.compress(untouched, SnapKV(keep=0.25, window=4)) as session:
        assert session.stats.tokens_in == 0 and session.stats.kv_bytes == 0
        untouched.generate(prompt(1, 40), **GREEDY)
    stats = session.stats
    per_entry = 4 * 2 * 2 * 8 * 4  # layers, keys and values, KV heads, head_dim, fp32
    assert (stats.tokens_in, stats.tokens_out) == (40, 5)
    assert stats.entries == [15.0] * 4 and stats.layers == [0, 1, 2, 3]
    assert stats.achieved == pytest.approx(15 / 45) and stats.asked == pytest.approx(11 / 45)
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
    method = laconic.create(name, tokens=tokens, **options)
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
