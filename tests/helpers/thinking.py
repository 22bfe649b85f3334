"""A tiny random model with the tokenizer of the reasoner, and its answers as lists of token ids."""

from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from laconic.testbed.reasoner_model import build_tokenizer

TOKENIZER = build_tokenizer()
MARK = TOKENIZER.convert_tokens_to_ids("###")
LATENT = TOKENIZER.convert_tokens_to_ids("<latent>")


def tiny_thinker(seed: int = 0, **config: Any) -> LlamaForCausalLM:
    """2 layers of width 32; its config names the mark, and it never ends an answer by itself."""
    torch.manual_seed(seed)
    settings = {"end_of_thinking": "###", "bos_token_id": None, "eos_token_id": None, "pad_token_id": 0, **config}
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(TOKENIZER),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=512,
            **settings,
        )
    ).eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.ndim == 2 and "embed" not in name:
                p.mul_(10)
    return model.requires_grad_(False)


def asked(rows: int = 1, tokens: int = 12, seed: int = 0) -> torch.Tensor:
    """Prompts of digits and words, without marks, [rows, tokens]."""
    drawn = torch.Generator().manual_seed(seed)
    return torch.randint(MARK + 1, len(TOKENIZER), (rows, tokens), generator=drawn)


def answered(model: Any, ids: torch.Tensor, new: int = 12, **options: Any) -> list[list[int]]:
    """What `generate()` adds to every row, greedily unless told otherwise."""
    settings = {"do_sample": False, "pad_token_id": 0, **options}
    out = model.generate(ids, attention_mask=(ids != 0).long(), max_new_tokens=new, **settings)
    return out[:, ids.shape[1] :].tolist()
