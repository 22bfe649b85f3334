"""Sessions on Qwen2-Audio: dropping entries of sound and text equals masking them in the stock model."""

import pytest
import torch
from helpers.audio_zoo import AUDIO, heard, qwen2_audio
from helpers.masked_reference import hidden_from, reference_logits

import laconic
from laconic import AdaKV, KeyDiff, SnapKV

GENERATE = {"max_new_tokens": 4, "do_sample": False, "output_logits": True, "return_dict_in_generate": True} | {
    "suppress_tokens": [AUDIO]  # a placeholder in the answer would have no sound
}
METHODS = {
    "snapkv": lambda: SnapKV(keep=0.3, window=4),
    "keydiff": lambda: KeyDiff(keep=0.3),
    "adakv": lambda: AdaKV(keep=0.3, scorer="snapkv:window=4"),
}


def strong() -> torch.nn.Module:
    """Weights large enough for tokens to matter to each other."""
    model = qwen2_audio().requires_grad_(False)
    for parameter in model.model.language_model.parameters():
        parameter.mul_(8.0 if parameter.ndim == 2 else 1.0)
    model.model.multi_modal_projector.linear.weight.mul_(8.0)
    model.set_attn_implementation("eager")
    return model


@pytest.mark.parametrize("method", METHODS)
def test_eviction_equals_masked_reference(method):
    model, inputs = strong(), heard([12, 30])
    n = inputs["input_ids"].shape[1]
    with laconic.compress(model, METHODS[method]()) as session:
        ours = model.generate(**inputs, **GENERATE)
        hidden = hidden_from(session, n, ours.sequences.shape[1], 2)
    whole = inputs | {"input_ids": ours.sequences, "attention_mask": torch.ones_like(ours.sequences)}
    after = slice(n - 1, n - 1 + len(ours.logits))
    expected = reference_logits(model, whole, hidden)[0, after]
    torch.testing.assert_close(torch.cat(ours.logits), expected, atol=1e-4, rtol=1e-4)
    assert (expected - reference_logits(model, whole, {})[0, after]).abs().max() > 1e-3, "nothing was at stake"


@torch.no_grad()
def test_a_padded_batch_keeps_what_each_prompt_alone_would_keep():
    """Prompts of different length with a sound each: the shorter one is padded on the left."""
    model = strong()
    alone = [heard([12], seed=2), heard([30], seed=3)]
    n = max(given["input_ids"].shape[1] for given in alone)

    def padded(name):
        return torch.cat([torch.nn.functional.pad(given[name], (n - given[name].shape[1], 0)) for given in alone])

    batch = {name: padded(name) for name in ("input_ids", "attention_mask")}
    batch |= {name: torch.cat([given[name] for given in alone]) for name in ("input_features", "feature_attention_mask")}

    def logits(inputs):
        with laconic.compress(model, SnapKV(keep=0.5, window=4)):
            return torch.stack(model.generate(**inputs, **GENERATE).logits, 1)

    together = logits(batch)
    for row, given in enumerate(alone):
        torch.testing.assert_close(together[row], logits(given)[0], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_bytes_of_sound_are_freed():
    model, inputs = strong(), heard([30])
    with laconic.compress(model, SnapKV(keep=0.25, window=4)) as session:
        model.generate(**inputs, max_new_tokens=1, do_sample=False, suppress_tokens=[AUDIO])
    stats = session.stats
    assert stats.kv_bytes <= 0.3 * stats.kv_bytes_full and stats.achieved == pytest.approx(0.25, abs=0.03)
