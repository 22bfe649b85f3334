"""A byte tokenizer with a few merges across a space, and a tiny model that reads it."""

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

SPACE = "\u0120"


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """ " robin" becomes " ro", "bi", "n"; all other letters are tokens of their own."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [(SPACE, "r"), (f"{SPACE}r", "o"), ("b", "i")]
    vocab = {token: i for i, token in enumerate([*alphabet, *("".join(merge) for merge in merges)])}
    raw = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return PreTrainedTokenizerFast(tokenizer_object=raw)


def word_tokenizer() -> PreTrainedTokenizerFast:
    """Six words, without their spaces."""
    words = ["?", "This", "is", "a", "robin", "."]
    raw = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="?"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="?")


def byte_llama() -> LlamaForCausalLM:
    """Two layers, random weights, 300 ids."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=300, **sizes)).eval()
