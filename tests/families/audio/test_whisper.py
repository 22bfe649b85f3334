"""Which encoder tokens of a Whisper window are sound."""

import pytest
import torch
from helpers.audio_zoo import qwen2_audio, whisper
from transformers import WhisperFeatureExtractor

from laconic import UnsupportedModelError
from laconic.families.audio.whisper import core_of, sound_tokens, token_seconds


@pytest.mark.parametrize("seconds", [0.1, 0.5, 1.01, 1.99])
def test_padding_is_found_with_and_without_a_mask(seconds):
    model = whisper()
    extractor = WhisperFeatureExtractor(feature_size=8, chunk_length=2)
    samples = torch.randn(int(seconds * 16_000), generator=torch.Generator().manual_seed(0)).numpy()
    inputs = extractor(samples, sampling_rate=16_000, return_tensors="pt", return_attention_mask=True)
    exact = -(-int(inputs.attention_mask.sum()) // 2)
    assert sound_tokens(model, inputs.input_features, inputs.attention_mask).tolist() == [exact]
    # a window of 25 ms that begins within the sound reaches two columns beyond its end
    assert 0 <= int(sound_tokens(model, inputs.input_features)) - exact <= 1


def test_rows_have_their_own_lengths_and_silence_has_one_token():
    features = torch.zeros(3, 8, 200)
    features[0, 3, 10], features[1, 0, 199] = 1.0, 1.0
    assert sound_tokens(whisper(), features).tolist() == [6, 100, 1]


def test_what_is_known_of_the_model():
    assert token_seconds(whisper()) == pytest.approx(0.02)
    with pytest.raises(UnsupportedModelError, match="Qwen2AudioForConditionalGeneration is no Whisper model"):
        core_of(qwen2_audio())
