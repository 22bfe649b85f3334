"""``testbed/audio`` before training: model, tokenizer and processor, all of transformers' own classes.

A clip of at most 8 seconds is a log-mel spectrogram of 50 frames a second, which Qwen2-Audio's encoder halves by a
convolution and again by a mean over pairs: 12.5 audio tokens a second, 100 at most.
"""

import math
from typing import Any

import torch
from torch import Tensor
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2AudioConfig,
    Qwen2AudioEncoderConfig,
    Qwen2AudioForConditionalGeneration,
    Qwen2AudioProcessor,
    Qwen2Config,
    WhisperFeatureExtractor,
)

from laconic.tasks.audio.questions import vocabulary
from laconic.tasks.audio.sounds import LONGEST, RATE
from laconic.testbed.bpe import train_bpe

HOP = 320
MELS = 64
WIDTH = 128
FRAMES = int(LONGEST) * RATE // HOP
TOKEN_SECONDS = 4 * HOP / RATE
VOCAB_SIZE = 352
AUDIO, BEGIN, END = "<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>"
SILENCE = "<|silence|>"
SPECIALS = ("<pad>", "<s>", "</s>", "<|system|>", "<|user|>", "<|assistant|>", AUDIO, BEGIN, END, SILENCE)
SPLIT = r" ?\p{Lu}?\p{Ll}+|\p{Lu}|\p{N}|\s+|[^\s\p{L}\p{N}]"
# The sound of a user's turn comes before its text, however the two are ordered in the message.
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|{{ message['role'] }}|>"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}{% if part['type'] == 'audio' %}<|audio_bos|><|AUDIO|><|audio_eos|>{% endif %}"
    "{% endfor %}"
    "{% for part in message['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}"
    "{% endif %}{{ eos_token }}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def sinusoids(length: int, width: int) -> Tensor:
    """Positions of Whisper's encoder [length, width]: sines in the first half of the width, cosines in the second."""
    rates = torch.exp(-math.log(10_000) / (width // 2 - 1) * torch.arange(width // 2))
    angles = torch.arange(length)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], 1)


def build_model() -> Qwen2AudioForConditionalGeneration:
    """A fresh Qwen2-Audio-class model of 1.8 M parameters: encoder 4 layers x 128, Qwen2 6 layers x 128 (4 query heads of 32
    on 2).
    """
    tokens: dict[str, Any] = {f"{name}_token_id": i for i, name in enumerate(("pad", "bos", "eos"))}
    audio = Qwen2AudioEncoderConfig(
        num_mel_bins=MELS,
        encoder_layers=4,
        encoder_attention_heads=4,
        encoder_ffn_dim=384,
        d_model=WIDTH,
        max_source_positions=FRAMES // 2,
    )
    audio.frame_seconds = HOP / RATE  # twice as long as Whisper's; laconic.families.audio reads it
    text = Qwen2Config(
        vocab_size=VOCAB_SIZE,
        hidden_size=WIDTH,
        intermediate_size=320,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        tie_word_embeddings=False,
        **tokens,
    )
    config = Qwen2AudioConfig(audio_config=audio, text_config=text, audio_token_index=SPECIALS.index(AUDIO), **tokens)
    model = Qwen2AudioForConditionalGeneration(config)
    tower = model.model.audio_tower
    with torch.no_grad():  # what the class leaves to the checkpoint: fixed positions, and convolutions as loud as they are
        tower.embed_positions.weight.copy_(sinusoids(*tower.embed_positions.weight.shape))
        for conv in (tower.conv1, tower.conv2):
            conv.weight.normal_(std=conv.weight[0].numel() ** -0.5)
    return model


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE trained on the questions; raises ``RuntimeError`` if a word of theirs is split."""
    lines = vocabulary()
    tokenizer = train_bpe(lines, SPLIT, VOCAB_SIZE, SPECIALS, CHAT_TEMPLATE)
    bpe = tokenizer.backend_tokenizer
    words = {word for line in lines for word, _ in bpe.pre_tokenizer.pre_tokenize_str(line)}
    broken = sorted(word for word in words if bpe.token_to_id(word) is None)
    if broken:
        raise RuntimeError(f"{len(broken)} words are not single tokens (first: {broken[:8]}); raise VOCAB_SIZE")
    return tokenizer


def build_processor(tokenizer: Any) -> Qwen2AudioProcessor:
    """Log-mel spectrograms of 8 seconds, padded, and one ``<|AUDIO|>`` for each audio token of the sound itself."""
    extractor = WhisperFeatureExtractor(
        feature_size=MELS, sampling_rate=RATE, hop_length=HOP, chunk_length=int(LONGEST), return_attention_mask=True
    )
    return Qwen2AudioProcessor(extractor, tokenizer, chat_template=CHAT_TEMPLATE)
