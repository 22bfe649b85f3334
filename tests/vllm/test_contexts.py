"""Compressed contexts as vLLM holds them: what follows counts entries, and still answers as laconic's own cache does."""

import json

import pytest
import torch
from safetensors import safe_open
from transformers import DynamicCache

import laconic
from laconic.cache.parts.ranked import turned
from laconic.errors import UnsupportedModelError
from laconic.memory.prefix import Prefix
from laconic.memory.store import SegmentStore
from laconic.vllm import hand_over
from laconic.vllm.contexts import HEADER, PARAMETER, exported
from laconic.vllm.weights import of_folder, of_model

TEXT = "The code for falcon is 4815263. The code for heron is 99. " * 4


@pytest.fixture(scope="module")
def lm():
    return laconic.load("testbed/lm")


def counted(model, tensors, question, tokens=8):
    """Greedy tokens after a stock cache of these entries, positions counted by entries, as vLLM counts them."""
    cache = DynamicCache()
    for layer in range(len(tensors) // 2):
        cache.update(*(tensors[f"{name}.{layer}"].transpose(0, 1)[None] for name in ("keys", "values")), layer)
    entries = cache.get_seq_length()
    ids = torch.tensor([[0] * entries + question])
    options = {"max_new_tokens": tokens, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    out = model.generate(ids, attention_mask=torch.ones_like(ids), past_key_values=cache, **options)
    return out[0, ids.shape[1] :].tolist()


def own(context, question, tokens=8):
    """The same after laconic's own cache."""
    ids = torch.tensor([context.ids + question])
    options = {"max_new_tokens": tokens, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    with context.session, context.session.hold(), torch.no_grad():
        model = context.session.model
        out = model.generate(ids, attention_mask=torch.ones_like(ids), past_key_values=context.fork(), **options)
    return out[0, ids.shape[1] :].tolist()


@pytest.mark.parametrize("spec", ["keydiff:keep=0.3", "snapkv:tokens=40", "streaming_llm:keep=0.5", "keydiff:keep=1.0"])
def test_answers_are_those_of_the_compressed_cache(lm, spec):
    model, tokenizer = lm
    context = laconic.read(model, tokenizer, TEXT, spec)
    tensors = exported(model, context.cache)
    assert len(tensors["keys.0"]) == len(context.cache.kept(0, 0))
    for question in ("What is the code for falcon?", "What is the code for heron?"):
        ids = context.prompt(question).question
        assert counted(model, tensors, ids) == own(context, ids)


def test_turning_keys_matters(lm):
    """The same entries, left where they were, give other scores; without this the test above would show nothing."""
    model, tokenizer = lm
    context = laconic.read(model, tokenizer, TEXT, "keydiff:keep=0.3")
    tensors = exported(model, context.cache)
    part = next(context.cache.compressed()).parts[0]
    assert not torch.allclose(tensors["keys.0"].transpose(0, 1)[None], part.keys, atol=1e-3)
    turn = torch.full(part.keys.shape[:3], context.cache.seen - len(tensors["keys.0"]))
    back = turned(
        tensors["keys.0"].transpose(0, 1)[None], turn, lambda at: context.session.family.cos_sin(model.model, 0, at)
    )
    assert torch.allclose(back, part.keys, atol=1e-5)


def test_a_prefix_whose_next_position_is_no_count_of_entries(lm):
    """Memories choose positions themselves: 20 entries that stand for 60 tokens."""
    model, tokenizer = lm
    context = laconic.read(model, tokenizer, TEXT)
    ids = torch.tensor([context.ids[:60]])
    with torch.no_grad():
        cache = model(ids, past_key_values=DynamicCache()).past_key_values
    some = torch.arange(0, 60, 3)
    prefix = Prefix(*(tuple(getattr(x, name)[:, :, some] for x in cache.layers) for name in ("keys", "values")), seen=60)
    question = context.prompt("falcon?").question
    context.ids, context.cache = context.ids[:60], prefix.compressed(model)
    assert counted(model, exported(model, context.cache), question) == own(context, question)


def test_in_a_store(lm, tmp_path):
    model, tokenizer = lm
    store = SegmentStore(tmp_path)
    context = laconic.read(model, tokenizer, TEXT, "keydiff:keep=0.3")
    made = hand_over(context, store, ttl=60)
    assert hand_over(context, store) == made and len(store.entries()) == 1
    assert made.tokens == len(context.ids) and made.entries == len(context.cache.kept(0, 0))
    assert made.prompt_ids([7, 8])[-3:] == [made.filler, 7, 8] and len(made.prompt_ids([7, 8])) == made.entries + 2
    assert made.parameters == {PARAMETER: made.key}
    assert store.entry(made.key).facts == {
        "kind": "vllm context",
        "format": "1",
        "weights": of_model(model.model),
        "entries": str(made.entries),
        "tokens": str(made.tokens),
    }
    with safe_open(store.get(made.key), "pt") as file:
        facts = json.loads(file.metadata()[HEADER])
        assert facts["entries"] == made.entries and facts["weights"] == of_model(model.model)
        assert len(file.get_tensor("keys.0")) == made.entries
    other = hand_over(laconic.read(model, tokenizer, TEXT, "keydiff:keep=0.5"), store)
    assert other.key != made.key
    with pytest.raises(ValueError, match="one token at least"):
        made.prompt_ids([])


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ("adakv:keep=0.3", "heads hold different numbers"),
        ("pyramidkv:keep=0.3", "spreads its budget"),
        ("kivi:residual=32", "packed"),
    ],
)
def test_what_vllm_cannot_hold_is_refused(lm, spec, reason):
    model, tokenizer = lm
    context = laconic.read(model, tokenizer, TEXT, spec)
    with pytest.raises(UnsupportedModelError, match=reason):
        exported(model, context.cache)


def test_models_that_cannot_move_entries_are_refused(lm, monkeypatch):
    model, tokenizer = lm
    context = laconic.read(model, tokenizer, TEXT, "keydiff:keep=0.5")
    monkeypatch.setitem(model.config.rope_parameters, "rope_type", "dynamic")
    with pytest.raises(UnsupportedModelError, match="other frequencies the longer"):
        exported(model, context.cache)


def test_weights_are_known_by_model_and_by_file(lm, tmp_path, llama):
    model, _ = lm
    model.save_pretrained(tmp_path)
    assert of_folder(tmp_path) == of_model(model.model) != of_model(llama.model)
    assert of_folder(tmp_path / "none") is None
