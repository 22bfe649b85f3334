"""``testbed/vlm`` before training: model, tokenizer and processor, all of transformers' own classes.

An image of 96 x 96 pixels in patches of 8 gives 144 visual tokens. As in LLaVA-1.5 the features are those of the last but
one layer of a CLIP vision tower, without the CLS token, through a projector of two layers.
"""

from typing import Any

from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from laconic.tasks.scenes.questions import vocabulary
from laconic.tasks.scenes.scenes import SIZE
from laconic.testbed.bpe import train_bpe

PATCH = 8
VISUAL_TOKENS = (SIZE // PATCH) ** 2
VOCAB_SIZE = 448
IMAGE = "<image>"
SPECIALS = ("<pad>", "<s>", "</s>", "<|system|>", "<|user|>", "<|assistant|>", IMAGE)
# Capitals and digits alone, words with the space before them: the text of a sign is spelled letter by letter.
SPLIT = r" ?\p{Lu}?\p{Ll}+|\p{Lu}|\p{N}|\s+|[^\s\p{L}\p{N}]"
# The image of a user's turn comes before its text, however the two are ordered in the message.
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|{{ message['role'] }}|>"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>{% endif %}{% endfor %}"
    "{% for part in message['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}"
    "{% endif %}{{ eos_token }}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
PIXELS: dict[str, Any] = {
    "crop_size": {"height": SIZE, "width": SIZE},
    "do_center_crop": False,
    "image_mean": [0.5] * 3,
    "image_std": [0.5] * 3,
}
"""How an image processor of the testbed makes numbers of pixels: values from -1 to 1."""
PLACES: dict[str, Any] = {
    "patch_size": PATCH,
    "vision_feature_select_strategy": "default",
    "chat_template": CHAT_TEMPLATE,
    "image_token": IMAGE,
    "num_additional_image_tokens": 1,
}
"""How a processor of the testbed writes images into a prompt: one ``<image>`` for each visual token."""


def build_model() -> LlavaForConditionalGeneration:
    """A fresh LLaVA-class model of 4.0 M parameters: ViT 5 layers x 192, Llama 8 layers x 128 (4 query heads of 32 on 2).

    The decoder is deep and narrow: methods that remove visual tokens between its layers need layers to do so.
    """
    tokens: dict[str, Any] = {f"{name}_token_id": i for i, name in enumerate(("pad", "bos", "eos"))}
    vision = CLIPVisionConfig(
        hidden_size=192,
        intermediate_size=768,
        num_hidden_layers=5,
        num_attention_heads=4,
        image_size=SIZE,
        patch_size=PATCH,
        projection_dim=192,
    )
    text = LlamaConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=8,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=4096,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        tie_word_embeddings=True,
        **tokens,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=SPECIALS.index(IMAGE),
        image_seq_length=VISUAL_TOKENS,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        tie_word_embeddings=True,
        **tokens,
    )
    return LlavaForConditionalGeneration(config)


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


def build_processor(tokenizer: Any) -> LlavaProcessor:
    """Resizes an image to 96 x 96, scales its values to -1 .. 1, and writes one ``<image>`` for each visual token."""
    side = {"height": SIZE, "width": SIZE}
    return LlavaProcessor(CLIPImageProcessorPil(do_resize=True, size=side, **PIXELS), tokenizer, **PLACES)
