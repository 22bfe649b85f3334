"""Bits of a text: the sum of its tokens' code lengths, whatever the windows, and never below a known entropy."""

import math
import zlib

import pytest
import torch
from helpers.thinking import TOKENIZER, asked, tiny_thinker

import laconic
from laconic.methods.lens.thinking_beyond_tokens.description import counted_bits, deflated_bits, predicted_bits

MODEL = tiny_thinker()


def test_1_bits_are_those_of_the_joint_probability():
    ids = asked(1, 30)[0].tolist()
    probabilities = MODEL(torch.tensor([ids])).logits[0].double().softmax(-1)
    joint = math.prod(float(probabilities[i, token]) for i, token in enumerate(ids[1:]))
    assert predicted_bits(MODEL, ids, 64, 8) == pytest.approx(-math.log2(joint), abs=1e-3)


def test_windows_predict_every_token_once_from_what_they_repeat():
    ids, window, before = asked(1, 30)[0].tolist(), 12, 5
    total, done = 0.0, 1
    while done < len(ids):
        start = max(0, done - before)
        for at in range(done, min(len(ids), start + window)):
            scores = MODEL(torch.tensor([ids[start:at]])).logits[0, -1].double().log_softmax(-1)
            total -= float(scores[ids[at]]) / math.log(2)
        done = min(len(ids), start + window)
    assert predicted_bits(MODEL, ids, window, before) == pytest.approx(total, abs=1e-3)


def test_1_bits_are_above_the_entropy_of_a_known_source():
    drawn = torch.randint(4, 20, (200,), generator=torch.Generator().manual_seed(0)).tolist()
    assert predicted_bits(MODEL, drawn, 64, 32) > 199 * 4  # 16 equally likely tokens: no model can know more


def test_counts_and_deflate():
    assert counted_bits("aabb") == 4 and counted_bits("aaaa") == 0
    assert deflated_bits(b"ab" * 50) == 8 * len(zlib.compress(b"ab" * 50, 9))


def test_the_lens_gives_bits_per_byte():
    text = "Start with 3 : + 4"
    found = laconic.create_method("thinking_beyond_tokens").look(MODEL, TOKENIZER, text)
    ids = [TOKENIZER.bos_token_id, *TOKENIZER.encode(text, add_special_tokens=False)]
    bits = predicted_bits(MODEL, ids, 512, 256)
    assert found["bits per byte"]["model"] == pytest.approx(bits / len(text)) and found["bytes"] == len(text)
    assert found["bits per token"] == pytest.approx(bits / (len(ids) - 1))


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="give a --context"):
        laconic.create_method("thinking_beyond_tokens").look(MODEL, TOKENIZER, None)
    with pytest.raises(ValueError, match="window=4"):
        laconic.create_method("thinking_beyond_tokens:window=4,before=4")
    with pytest.raises(ValueError, match="two tokens at least"):
        predicted_bits(MODEL, [1], 8, 4)
