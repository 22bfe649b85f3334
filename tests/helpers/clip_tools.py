"""The CLIP whose vision half is a model's encoder, with a text half of random weights."""

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import CLIPConfig, CLIPModel, LlavaForConditionalGeneration, PreTrainedTokenizerFast

WORDS = ["<pad>", "<end>", "what", "is", "left", "right", "red", "blue", "cat"]
LONGEST = 77


def clip_of(vlm: LlavaForConditionalGeneration) -> tuple[CLIPModel, PreTrainedTokenizerFast]:
    """A CLIP with random weights whose vision half is the model's encoder, and its tokenizer."""
    torch.manual_seed(3)
    text = {"vocab_size": len(WORDS), "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    text |= {"num_attention_heads": 2, "max_position_embeddings": LONGEST}
    text |= {"eos_token_id": 1, "pad_token_id": 0, "bos_token_id": 0}
    config = CLIPConfig(text_config=text, vision_config=vlm.config.vision_config.to_dict(), projection_dim=24)
    model = CLIPModel(config).eval().requires_grad_(False)
    for parameter in model.text_model.parameters():
        parameter.normal_(0, 0.5)
    model.vision_model.load_state_dict(
        {key.removeprefix("vision_model."): value for key, value in vlm.model.vision_tower.state_dict().items()}
    )
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="cat"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(single="$A <end>", special_tokens=[("<end>", 1)])
    return model, PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", eos_token="<end>")
