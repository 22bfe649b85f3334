"""Prompts whose context is soft tokens: what the model reads, and what the figures say."""

import pytest
import torch
from helpers.memory_tools import artifact_of, method

import laconic
from laconic.engine.engine import Engine, Request
from laconic.errors import ConflictError, SavedContextError
from laconic.measure.cost import Shape
from laconic.methods.memory.compllm.network import ConceptEmbeddings
from laconic.prompts.text import PromptError, build

TEXT = "The code for falcon is 4815263. " * 6
ASK = {"question": "What is the code for falcon?", "max_new_tokens": 4}


@pytest.fixture(scope="module")
def engine():
    model, tokenizer = laconic.load("testbed/lm")
    return Engine(model.float(), tokenizer)


@pytest.fixture(scope="module")
def text(engine, tmp_path_factory):
    torch.manual_seed(0)
    network = ConceptEmbeddings(engine.model, 8, 2)
    return artifact_of("compllm", engine.model, network, tmp_path_factory.mktemp("a") / "compllm.safetensors", marker=2)


@pytest.mark.parametrize("mode", ["in view", "later"])
def test_the_model_reads_opening_memory_and_question(engine, text, mode):
    """The same tokens as from one plain call on the mixed embeddings, built by hand."""
    model, tokenizer = engine.model, engine.tokenizer
    answer = engine.answer(Request(context=TEXT, methods=[method(text)], mode=mode, **ASK))
    prompt = build(tokenizer, TEXT, ASK["question"])
    made = method(text)
    made.attach(model)
    soft = made.compress(model, prompt.context[prompt.opening :])
    embed = model.get_input_embeddings()
    parts = [embed(torch.tensor(prompt.context[: prompt.opening])), soft, embed(torch.tensor(prompt.question))]
    ids: list[int] = []
    with torch.no_grad():
        for _ in range(4):
            mixed = torch.cat([*parts, embed(torch.tensor(ids, dtype=torch.long))])[None]
            ids.append(int(model(inputs_embeds=mixed).logits[0, -1].argmax()))
    assert answer.ids == ids[: len(answer.ids)]
    assert tokenizer.decode(prompt.context[: prompt.opening]) == "<s><|user|>"


@pytest.mark.parametrize("mode", ["in view", "later"])
def test_figures_are_of_the_whole_context(engine, text, mode):
    model = engine.model
    prompt = build(engine.tokenizer, TEXT, ASK["question"])
    n = len(prompt.context) - prompt.opening
    soft = sum(-(-min(8, n - start) // 2) for start in range(0, n, 8))
    whole = engine.answer(Request(context=TEXT, mode=mode, **ASK)).prompt
    made = method(text)
    got = engine.answer(Request(context=TEXT, methods=[made], mode=mode, **ASK)).prompt
    assert got.tokens_in == whole.tokens_in == prompt.tokens
    assert got.kv_bytes_full == whole.kv_bytes and got.prefill_flops_full == pytest.approx(
        whole.prefill_flops_full, rel=0.02
    )
    stored = prompt.tokens - n + soft
    assert got.achieved == pytest.approx(stored / prompt.tokens) == got.kv_bytes / got.kv_bytes_full
    assert got.asked == pytest.approx((prompt.tokens - n / 2) / prompt.tokens)
    shape = Shape.of(model, model.model)
    own = shape.prefill_flops([stored] * shape.layers) + made.flops(shape, n)
    assert got.prefill_flops == pytest.approx(own, rel=0.02) and got.compress_seconds > 0


def test_a_cache_method_cuts_the_memory_further(engine, text):
    both = Request(context=TEXT, methods=[method(text), laconic.Random(keep=0.5)], mode="later", **ASK)
    alone = engine.answer(Request(context=TEXT, methods=[method(text)], mode="later", **ASK)).compressed
    cut, packed = engine.answer(both).compressed, laconic.KIVI(bits=4, group=8, residual=8)
    assert cut.achieved == pytest.approx(alone.achieved / 2, rel=0.1) == cut.asked
    small = engine.answer(Request(context=TEXT, methods=[method(text), packed], mode="later", **ASK)).compressed
    assert small.entries == alone.entries and small.kv_bytes < 0.7 * alone.kv_bytes


def test_a_context_is_read_once_and_asked_often(engine, text, tmp_path):
    context = laconic.read(engine.model, engine.tokenizer, TEXT, method(text))
    first = context.ask(ASK["question"], max_new_tokens=4)
    assert context.ask("Other?", max_new_tokens=2).ids and context.ask(ASK["question"], max_new_tokens=4).ids == first.ids
    once = engine.answer(Request(context=TEXT, methods=[method(text)], mode="later", **ASK))
    assert first.ids == once.ids and context.stats.compress_seconds > 0
    assert first.prompt.tokens_in == once.prompt.tokens_in and first.prompt.achieved == once.prompt.achieved
    assert context.ask("And?", follow_up=True, max_new_tokens=2).ids
    given = laconic.read(engine.model, engine.tokenizer, context.kept)
    assert given.ask(ASK["question"], max_new_tokens=4).ids == first.ids
    with pytest.raises(SavedContextError, match="save that"):
        context.save(tmp_path / "context.safetensors")


def test_a_given_memory_stands_for_the_context(engine, text):
    memory = laconic.Memory.of(engine.model, engine.tokenizer, TEXT, method(text))
    got = engine.answer(Request(memory=memory, **ASK))
    assert got.ids == engine.answer(Request(context=TEXT, methods=[method(text)], **ASK)).ids
    stock = engine.answer(Request(memory=memory, **ASK).stock())
    assert stock.ids == engine.answer(Request(context=TEXT, **ASK).stock()).ids


def test_neutral_reads_the_context_itself(engine):
    plain = engine.answer(Request(context=TEXT, **ASK))
    neutral = engine.answer(Request(context=TEXT, methods=[laconic.CompLLM(keep=1.0)], **ASK))
    assert neutral.ids == plain.ids and neutral.prompt.achieved == 1


def test_what_does_not_go_together_is_refused(engine, text):
    memory = laconic.Memory.of(engine.model, engine.tokenizer, TEXT, method(text))
    with pytest.raises(ConflictError, match="leave compllm out"):
        engine.answer(Request(memory=memory, methods=[method(text)], **ASK))
    with pytest.raises(ConflictError, match="both make the memory"):
        engine.answer(Request(context=TEXT, methods=[method(text), method(text)], **ASK))
    with pytest.raises(PromptError, match="empty"):
        engine.answer(Request(methods=[method(text)], **ASK))
