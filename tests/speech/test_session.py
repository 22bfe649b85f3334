"""Sessions on Whisper: what the decoder looks at, what is counted, and what is refused."""

import pytest
import torch
from helpers.audio_zoo import qwen2_audio, whisper
from helpers.flops import counted
from helpers.vision_tools import laconic_hooks
from transformers import LlamaConfig, LlamaForCausalLM

import laconic
from laconic import BudgetError, ConflictError, SessionError, UnsupportedModelError
from laconic.speech.encoder import spread

SPECS = ["audio_pool", "random_audio", "crop_audio", "silence_gate", "a_tome", "a_tome:at=output", "topk_audio"]
GREEDY = {"max_new_tokens": 4, "do_sample": False, "return_dict_in_generate": True, "output_logits": True}
every_method = pytest.mark.parametrize("spec", SPECS)


def of(spec, **budget):
    return laconic.create_method(spec, **budget)


def features(lengths, columns=200, seed=1):
    """Windows that are noise, then padding."""
    x = torch.randn(len(lengths), 8, columns, generator=torch.Generator().manual_seed(seed))
    for row, length in enumerate(lengths):
        x[row, :, length:] = -9.0
    return x


def logits(output):
    return torch.stack(output.logits)


@pytest.fixture(scope="module")
def model():
    return whisper(encoder_layers=4)


@every_method
def test_the_neutral_setting_is_the_model(model, spec):
    x = features([100, 60])
    want = model.generate(x, **GREEDY)
    with laconic.compress_encoder(model, of(spec, keep=1.0)) as session:
        got = model.generate(x, **GREEDY)
    assert torch.equal(got.sequences, want.sequences)
    torch.testing.assert_close(logits(got), logits(want), atol=1e-5, rtol=1e-5)
    assert session.stats.achieved == 1 and session.stats.cross_bytes == session.stats.cross_bytes_full


@every_method
@pytest.mark.parametrize("keep", [0.5, 0.25, 0.1])
def test_budgets_are_met_and_bytes_are_freed(model, spec, keep):
    x = features([160, 80])  # 80 and 40 tokens of sound
    short = of(spec + (",silence=0.1" if ":" in spec else ":silence=0.1"), keep=keep)
    with laconic.compress_encoder(model, short) as session:
        out = model.generate(x, **GREEDY)
    kept = [round(80 * keep), round(40 * keep)]
    assert [window.kept for window in session.windows] == kept
    assert [window.silence for window in session.windows] == [5, 5]
    stats = session.stats
    assert stats.achieved == pytest.approx(keep) == stats.asked
    assert stats.kept_tokens == sum(kept) + 10
    entry = 2 * 2 * 32 * 4
    assert stats.cross_bytes == stats.kept_tokens * entry and stats.cross_bytes_full == 200 * entry
    stored = out.past_key_values.cross_attention_cache.layers
    assert all(layer.keys.shape[2] == max(kept) + 5 for layer in stored)


@every_method
def test_a_batch_is_what_each_window_is_alone(model, spec):
    x = features([160, 80, 30])
    with laconic.compress_encoder(model, of(spec, keep=0.4)):
        both = model.generate(x, **GREEDY)
        alone = [model.generate(one[None], **GREEDY) for one in x]
    for row, single in enumerate(alone):
        assert torch.equal(both.sequences[row], single.sequences[0])
        torch.testing.assert_close(logits(both)[:, row], logits(single)[:, 0], atol=1e-4, rtol=1e-4)


@every_method
def test_nothing_is_left_behind(model, spec):
    x = features([100])
    want = model.generate(x, **GREEDY)
    with pytest.raises(ZeroDivisionError), laconic.compress_encoder(model, of(spec, keep=0.5)):
        model.generate(x, **GREEDY)
        raise ZeroDivisionError
    assert laconic_hooks(model) == []
    assert torch.equal(logits(model.generate(x, **GREEDY)), logits(want))


def test_beams(model):
    x = features([160, 80])
    with laconic.compress_encoder(model, "audio_pool:keep=0.5"):
        both = model.generate(x, num_beams=3, max_new_tokens=4)
        alone = [model.generate(one[None], num_beams=3, max_new_tokens=4) for one in x]
    assert torch.equal(both, torch.cat(alone))


@pytest.mark.parametrize("spec", ["topk_audio", "a_tome", "audio_pool", "audio_pool:strip=input", "a_tome:strip=input"])
def test_flops_are_those_that_ran(model, spec):
    """The encoder's, against torch's own counter; the convolutions before its layers are in neither figure."""
    x = features([160])
    with torch.no_grad(), laconic.compress_encoder(model) as session, counted() as ran:
        model.model.encoder(x)
    cross = 4 * 2 * 32**2  # of one token, in two decoder layers
    convolutions = ran.total() - (session.stats.encoder_flops - 100 * cross)
    with torch.no_grad(), laconic.compress_encoder(model, of(spec, keep=0.5)) as session, counted() as ran:
        model.model.encoder(x)
    stats = session.stats
    expected = stats.encoder_flops - stats.kept_tokens * cross + stats.method_flops + convolutions
    assert ran.total() == pytest.approx(expected, rel=1e-3)
    assert stats.encoder_flops < stats.encoder_flops_full == pytest.approx(ran.total(), rel=2)


def test_with_no_method_everything_is_counted(model):
    with laconic.compress_encoder(model) as session:
        model.generate(features([160, 80]), **GREEDY)
    stats = session.stats
    assert (stats.windows, stats.encoder_tokens, stats.kept_tokens) == (2, 200, 200)
    assert stats.encoder_flops == stats.encoder_flops_full > 0


def test_what_is_refused(model):
    x = features([100])
    with pytest.raises(UnsupportedModelError, match="LlamaForCausalLM is no Whisper model"):
        laconic.compress_encoder(
            LlamaForCausalLM(LlamaConfig(hidden_size=8, num_hidden_layers=1, vocab_size=9, num_attention_heads=1))
        )
    with pytest.raises(UnsupportedModelError, match="compress_encoder"):
        laconic.compress(model, "audio_pool:keep=0.5")
    with pytest.raises(ConflictError, match="snapkv does not shorten sound"):
        laconic.compress_encoder(model, "snapkv")
    with pytest.raises(ConflictError, match="use one of them"):
        laconic.compress_encoder(model, "audio_pool", "a_tome")
    with pytest.raises(UnsupportedModelError, match="speechprune chooses by the question"):
        laconic.compress_encoder(model, "speechprune")
    with pytest.raises(SessionError, match="already"), laconic.compress_encoder(model), laconic.compress_encoder(model):
        pass
    encoded = model.model.encoder(x)
    with laconic.compress_encoder(model, "audio_pool:keep=0.5"), pytest.raises(SessionError, match="pass input_features"):
        model.generate(encoder_outputs=encoded, **GREEDY)
    with laconic.compress_encoder(model, "audio_pool:keep=0.001"), pytest.raises(BudgetError, match="at least one"):
        model.generate(x, **GREEDY)
    with pytest.raises(ValueError, match="strip='middle'"):
        laconic.create_method("audio_pool:strip=middle")
    with pytest.raises(ValueError, match="silence=-1"):
        laconic.create_method("audio_pool:silence=-1")


def test_other_kernels_are_refused(model):
    model.config._attn_implementation = "flash_attention_2"
    try:
        with pytest.raises(UnsupportedModelError, match="takes no such mask"):
            laconic.compress_encoder(model, "audio_pool")
    finally:
        model.config._attn_implementation = "sdpa"


@pytest.mark.parametrize("spec", ["a_tome", "topk_audio"])
def test_methods_inside_the_encoder_are_not_for_models_that_join_tokens_after_it(spec):
    with pytest.raises(UnsupportedModelError, match="joins its tokens in fixed groups"):
        laconic.compress(qwen2_audio(), f"{spec}:keep=0.5")


@torch.no_grad()
def test_padding_that_is_left_is_attended_like_all_of_it(model):
    """Where all padding is the same, any share of it gives the model's own output; unweighted it does not."""
    hidden = torch.randn(1, 100, 32, generator=torch.Generator().manual_seed(0))
    hidden[:, 60:] = hidden[:, 60:61]
    handle = model.model.encoder.layer_norm.register_forward_hook(lambda *_: hidden)
    x, ids = features([120]), torch.tensor([[1, 5, 7]])
    want = model(input_features=x, decoder_input_ids=ids).logits
    with laconic.compress_encoder(model, "audio_pool:tokens=59,silence=0.1") as session:
        model(input_features=x, decoder_input_ids=ids)
    assert session.windows[0].silence == 5
    found = []
    for proportional in ("true", "false"):
        with laconic.compress_encoder(model, f"a_tome:threshold=0.99999,at=output,silence=0.1,proportional={proportional}"):
            found.append(model(input_features=x, decoder_input_ids=ids).logits)
    handle.remove()
    torch.testing.assert_close(found[0], want, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(found[1], want, atol=1e-3)


@pytest.mark.parametrize(("there", "wanted"), [(40, 10), (7, 7), (9, 4), (5, 0), (1, 1)])
def test_padding_is_spread_evenly(there, wanted):
    places = spread(there, wanted).tolist()
    assert places == [i * there // wanted for i in range(wanted)] and len(set(places)) == wanted
