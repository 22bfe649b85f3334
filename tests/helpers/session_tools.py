"""What the session tests share: greedy options, a tiny tokenizer, snapshots of a model, a count of what is fed."""

import copy

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import PreTrainedTokenizerFast

GREEDY = {"max_new_tokens": 6, "do_sample": False}
LOGITS = GREEDY | {"output_logits": True, "return_dict_in_generate": True}


@pytest.fixture(scope="module")
def tokenizer():
    vocab = {f"w{i}": i for i in range(97)}
    words = Tokenizer(WordLevel(vocab, unk_token="w0"))
    words.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="w0", padding_side="left")


def state(model):
    """Everything that a session might leave behind on a model."""
    modules = {
        name: (
            sorted(module.__dict__),
            len(module._forward_pre_hooks),
            len(module._forward_hooks),
            len(module._forward_hooks_with_kwargs),
            len(module._forward_hooks_always_called),
            type(module),
        )
        for name, module in model.named_modules()
    }
    weights = {name: x.clone() for name, x in model.state_dict().items()}
    return modules, copy.deepcopy(model.config.to_dict()), model.config._attn_implementation, weights


def assert_same_state(model, before):
    modules, config, implementation, weights = state(model)
    assert (modules, config, implementation) == before[:3]
    assert all(torch.equal(weights[name], x) for name, x in before[3].items())


@pytest.fixture
def untouched(llama, prompt):
    """Fails a test that leaves anything on the model."""
    ids = prompt(1, 12, seed=9)
    before, logits = state(llama), llama(ids).logits
    yield llama
    assert_same_state(llama, before)
    assert torch.equal(llama(ids).logits, logits)


class Fed:
    """Counts the tokens that a model is fed."""

    def __init__(self, model):
        self.counts = []
        self.handle = model.model.embed_tokens.register_forward_pre_hook(lambda m, a: self.counts.append(a[0].shape[1]))


def head_entries(layer, row, head):
    """Keys, values, bias and index of the entries of one head of one batch row."""
    keys, values, columns = layer.parts[0].padded()
    there = columns["valid"][row, head] if "valid" in columns else torch.ones(keys.shape[2], dtype=torch.bool)
    bias = columns.get("bias", torch.zeros(keys.shape[:3]))
    return keys[row, head, there], values[row, head, there], bias[row, head, there], columns["index"][row, head, there]
