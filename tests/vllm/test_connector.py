"""A stock vLLM that serves compressed contexts from a store, token by token as laconic serves them on transformers."""

import pytest
import torch
from helpers.vllm_tools import TOKENS, answered, engine, expected, greedy, needs_vllm

import laconic
from laconic.memory.store import SegmentStore
from laconic.shipped import model_path
from laconic.vllm import hand_over

pytestmark = [pytest.mark.slow, needs_vllm]
TEXT = "The code for falcon is 4815263. The code for heron is 99. " * 8
QUESTIONS = ("What is the code for falcon?", "What is the code for heron?")
SPECS = ("keydiff:keep=0.3", "snapkv:tokens=64", "streaming_llm:tokens=200", "keydiff:keep=1.0")


@pytest.fixture(scope="module")
def lm():
    return laconic.load("testbed/lm")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def llm(folder):
    from vllm.config import KVTransferConfig

    transfer = KVTransferConfig(
        kv_connector="Connector",
        kv_connector_module_path="laconic.vllm.connector",
        kv_role="kv_consumer",
        kv_connector_extra_config={"store": str(folder)},
    )
    return engine(model_path("testbed/lm"), kv_transfer_config=transfer)


def own(context, ids):
    """laconic's own tokens."""
    with context.session, context.session.hold():
        whole = torch.tensor([context.ids + ids])
        return expected(context.session.model, input_ids=whole, past_key_values=context.fork())


def test_contexts_of_all_lengths_interleaved(lm, llm, folder):
    """Fewer and more entries than a block of vLLM's holds (128), one after the other and in one batch."""
    store, asked = SegmentStore(folder), []
    for spec in SPECS:
        context = laconic.read(*lm, TEXT, spec)
        made = hand_over(context, store)
        for question in QUESTIONS:
            ids = context.prompt(question).question
            asked.append(({"prompt_token_ids": made.prompt_ids(ids)}, made.parameters, own(context, ids)))
    entries = {len(prompt["prompt_token_ids"]) > 128 for prompt, *_ in asked}
    assert entries == {True, False}
    prompts, parameters, wanted = map(list, zip(*asked, strict=True))
    for i in range(len(asked)):
        assert greedy(llm, prompts[i : i + 1], parameters[i : i + 1]) == wanted[i : i + 1], SPECS[i // 2]
    order = torch.randperm(2 * len(asked), generator=torch.Generator().manual_seed(0)) % len(asked)
    mixed = greedy(llm, [prompts[i] for i in order], [parameters[i] for i in order])
    assert mixed == [wanted[i] for i in order]


def test_plain_prompts_are_those_of_the_model(lm, llm):
    model, tokenizer = lm
    ids = tokenizer.encode(TEXT, add_special_tokens=False)[:100]
    assert greedy(llm, [{"prompt_token_ids": ids}]) == [expected(model, input_ids=torch.tensor([ids]))]


def test_what_cannot_be_had_fails_its_request_alone(lm, llm, folder, tmp_path):
    """No such context, one of another model, a damaged one, a prompt that is too short: an error, and no tokens."""
    store = SegmentStore(folder)
    context = laconic.read(*lm, TEXT, "keydiff:keep=0.4")
    made, ids = hand_over(context, store), context.prompt(QUESTIONS[0]).question
    prompt = {"prompt_token_ids": made.prompt_ids(ids)}
    damaged = hand_over(laconic.read(*lm, TEXT, "keydiff:keep=0.2"), store)
    path = store.get(damaged.key)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    other = laconic.load("testbed/lm")[0]
    other.model.layers[0].self_attn.k_proj.weight.data += 1
    foreign = hand_over(laconic.read(other, lm[1], TEXT, "keydiff:keep=0.4"), store)
    bad = [
        (prompt, {"laconic_context": "ctx_0000000000000000"}),
        (prompt, {"laconic_context": "../../etc/passwd"}),
        (prompt, {"laconic_context": 7}),
        (prompt, foreign.parameters),
        ({"prompt_token_ids": damaged.prompt_ids(ids)}, damaged.parameters),
        ({"prompt_token_ids": made.prompt_ids(ids)[: made.entries]}, made.parameters),
    ]
    for wrong, parameters in bad:
        (first,), (good,) = ([out] for out in answered(llm, [wrong, prompt], [parameters, made.parameters]))
        assert first.outputs[0].finish_reason == "error", parameters
        assert not first.outputs[0].token_ids
        assert list(good.outputs[0].token_ids) == own(context, ids) and len(good.outputs[0].token_ids) == TOKENS


def test_settings_that_would_give_wrong_answers_are_refused(tmp_path):
    from types import SimpleNamespace as Some

    from laconic.vllm.connector import _check

    def config(caching=False, policy="fail", world=1):
        return Some(
            cache_config=Some(enable_prefix_caching=caching),
            kv_transfer_config=Some(kv_load_failure_policy=policy),
            parallel_config=Some(world_size=world),
        )

    _check(config(), {"store": "x"})
    for given, own_settings, said in (
        (config(), {}, "lacks"),
        (config(), {"store": "x", "sotre": 1}, "unknown"),
        (config(caching=True), {"store": "x"}, "no-enable-prefix-caching"),
        (config(policy="recompute"), {"store": "x"}, "must be"),
        (config(world=2), {"store": "x"}, "parallel size 1"),
    ):
        with pytest.raises(ValueError, match=said):
            _check(given, own_settings)
