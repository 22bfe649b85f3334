"""A session around the ways people call a model: what comes out, what is fed, what is said, and what is left behind."""

import io
from contextlib import redirect_stdout

import pytest
import torch
from helpers.method_tools import METHODS, method
from helpers.session_tools import GREEDY, LOGITS, Fed, tokenizer, untouched
from transformers import LlamaModel, TextStreamer, pipeline

import laconic
from laconic import AdaKV, FastKV, KNorm, SessionError, SnapKV, StreamingLLM

__all__ = ["tokenizer", "untouched"]  # fixtures


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
    for each in methods:
        with laconic.compress(untouched, each) as session:
            padded = untouched.generate(ids, attention_mask=mask, prefill_chunk_size=10, **GREEDY)
            assert session.stats.tokens_in == 30
            alone = untouched.generate(ids[:, 20:], prefill_chunk_size=10, **GREEDY)
            assert torch.equal(padded[:, 50:], alone[:, 30:])
            mask[0] = 1  # and now one row only
            mixed = untouched.generate(ids, attention_mask=mask, prefill_chunk_size=10, **GREEDY)
            assert torch.equal(mixed[1, 50:], alone[1, 30:])
            mask[0, :20] = 0


@pytest.mark.filterwarnings("ignore:.* was asked to keep")
@pytest.mark.parametrize("name", METHODS)
def test_chunks_of_a_padded_batch_keep_what_a_single_sequence_keeps(untouched, prompt, name):
    """Filler between stored and new entries once changed who is whose neighbour when scores are pooled."""
    ids, mask = prompt(2, 50), torch.ones(2, 50, dtype=torch.long)
    mask[1, :20] = 0
    options = {"max_new_tokens": 1, "do_sample": False, "prefill_chunk_size": 10}
    with laconic.compress(untouched, method(name, keep=0.4)) as session:
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
