"""VoCo-LLaMA: questions of the cache of its tokens alone, as under the published mask over one pass."""

import pytest
import torch
from helpers.memory_tools import artifact_of

import laconic
from laconic.engine.engine import Engine, Request
from laconic.errors import BudgetError
from laconic.families.vision.merged import merged
from laconic.fit.find import find_fit
from laconic.fit.images import inputs, scenes
from laconic.fit.memory import predicted_after
from laconic.fit.settings import parse
from laconic.memory.memory import Memory
from laconic.memory.prefix import read
from laconic.memory.summary import SummaryTokens
from laconic.prompts import media
from laconic.prompts.text import PromptError
from laconic.tasks.scenes.questions import drawn, pose


@pytest.fixture(scope="module")
def loaded():
    model, processor = laconic.load("testbed/vlm")
    return model.float(), processor


@pytest.fixture(scope="module")
def network(loaded):
    torch.manual_seed(1)
    made = SummaryTokens(loaded[0])
    made.tokens.data.normal_()
    return made


@pytest.fixture(scope="module")
def spec(loaded, network, tmp_path_factory):
    return artifact_of("voco_llama", loaded[0], network, tmp_path_factory.mktemp("a") / "voco.safetensors")


@pytest.fixture(scope="module")
def image():
    return drawn(pose("colour", 3)[0])


def published_mask(first, last, opening, length):
    """Query i sees key j: causal up to the last token; after it the tokens and itself alone. What opens the prompt stays in
    view here."""
    mask = torch.full((1, 1, length, length), torch.finfo(torch.float32).min)
    for i in range(length):
        for j in range(i + 1):
            if i <= last or j >= first or j < opening:
                mask[0, 0, i, j] = 0
    return mask


@torch.no_grad()
@pytest.mark.parametrize("keep", [1 / 144, 4 / 144, 0.25])
def test_1_2_two_phases_equal_the_masked_pass(loaded, network, image, keep):
    """Untrained, so the copy that reads is the model itself: one pass of it under the mask gives the same logits."""
    model, processor = loaded
    prompt = media.build(processor, [image], "", "What colour is the ring?")
    reading = find_reading(model, processor, prompt)
    made = network(model, reading["opening"], reading["context"], keep)
    k, o, n, question = round(144 * keep), 2, 144, torch.tensor([prompt.question])
    assert (made.entries, made.seen) == (o + k, o + n + k)
    got = model(
        input_ids=question, past_key_values=made.cache(model.dtype), position_ids=made.after(question.shape[1])
    ).logits
    embed = model.get_input_embeddings()
    parts = [embed(reading["opening"][None]), reading["context"], network.tokens.expand(1, k, -1), embed(question)]
    mixed = torch.cat(parts, 1)
    mask = published_mask(o + n, o + n + k - 1, o, mixed.shape[1])
    want = model.model.language_model(inputs_embeds=mixed, attention_mask=mask).last_hidden_state
    torch.testing.assert_close(got, model.lm_head(want)[:, o + n + k :], atol=1e-4, rtol=1e-4)
    # 5: positions that begin anew are something else
    anew = model(
        input_ids=question, past_key_values=made.cache(model.dtype), position_ids=torch.arange(question.shape[1])[None] + o
    ).logits
    assert (anew - got).abs().max() > 1e-2


def find_reading(model, processor, prompt):
    ids = torch.tensor([prompt.context])
    context = merged(model, {**prompt.inputs, "input_ids": ids})[:, prompt.opening :]
    return {"opening": ids[0, : prompt.opening], "context": context}


def test_3_gradients_reach_the_image_through_the_tokens_alone(loaded, network, image):
    model, processor = loaded
    reading = find_reading(model, processor, media.build(processor, [image], "", "Is there a ring?"))
    context = reading["context"].requires_grad_()
    made = network(model, reading["opening"], context, 2 / 144)
    rest = torch.tensor([[5, 9, 11]])

    def asked(prefix):
        return model(input_ids=rest, past_key_values=prefix.cache(model.dtype), position_ids=prefix.after(3)).logits.sum()

    (gradient,) = torch.autograd.grad(asked(made), context, retain_graph=True)
    assert gradient.abs().sum() > 0
    cut = made.map(lambda x: torch.cat([x[:, :, :2], x[:, :, 2:].detach()], 2))
    (gradient,) = torch.autograd.grad(asked(cut), context, allow_unused=True)
    assert gradient is None or not gradient.any()


def test_4_bytes_of_the_cache(loaded, spec, image):
    model, processor = loaded
    memory = Memory.of_images(model, processor, media.build(processor, [image], "", "?"), 1, f"{spec},keep=0.25")
    assert memory.prefix.nbytes == 2 * 8 * 2 * 32 * (2 + 36) * 4  # K and V, layers, heads, dimension, entries, bytes
    assert len(memory.ids) == 144 and memory.images == 1 and memory.saved_tokens == -36


def test_8_questions_of_one_memory_are_answered_as_separate_runs(loaded, spec, image):
    model, processor = loaded
    questions = ["What colour is the ring?", "How many shapes are there?", "Is there a red star?"]
    context = laconic.read(model, processor, "", f"{spec},keep=0.25", images=[image])
    engine = Engine(model, processor)
    for question in questions:
        request = Request(images=[image], question=question, methods=[f"{spec},keep=0.25"], mode="later")
        assert context.ask(question).text == engine.answer(request).text
    assert context.kept.images == 1


def test_a_saved_memory_is_asked_without_the_image(loaded, spec, image, tmp_path):
    model, processor = loaded
    prompt = media.build(processor, [image], "", "?")
    memory = Memory.of_images(model, processor, prompt, 1, f"{spec},keep=0.25")
    memory.save(tmp_path / "m.safetensors")
    again = Memory.load(tmp_path / "m.safetensors", model, processor)
    assert again.images == 1
    with laconic.compress(model), torch.no_grad():
        one, two = (
            model.generate(**m.inputs(model, processor, "Is there a ring?"), max_new_tokens=3) for m in (memory, again)
        )
    assert torch.equal(one, two)


def test_the_uncompressed_context_through_the_training_is_the_model(loaded):
    """What the training gives the frozen model is what the processor's prompts give it."""
    model, processor = loaded
    fit = parse(find_fit("voco_llama"), {"batch_size": "4", "steps": "1"})
    fit.build(model, processor)
    reading, keep = fit.batch(0)
    assert reading.context.shape == (4, 144, 128) and keep == 0.25
    whole = read(model, torch.cat([model.get_input_embeddings()(reading.opening.expand(4, -1)), reading.context], 1))
    logits, wanted = predicted_after(model, reading, whole)
    assert float((logits.argmax(-1) == wanted).float().mean()) > 0.95
    plain = model(**inputs(processor, scenes(4, 0))).logits[:, -1].argmax(-1)
    firsts = [
        logits[i].argmax() for i in torch.cat([torch.tensor([0]), reading.learned[:, 1:].sum(1).cumsum(0)[:-1]]).tolist()
    ]
    assert torch.equal(torch.stack(firsts), plain)


@pytest.mark.parametrize(
    ("changes", "message"), [({"context": "a ring"}, "images alone"), ({"images": []}, "memory of images")]
)
def test_other_contexts_are_refused(loaded, spec, image, changes, message):
    engine = Engine(*loaded)
    given = {"images": [image], "question": "Is there a ring?", "methods": [f"{spec},keep=0.25"], **changes}
    if not given["images"]:
        given["context"] = "There is a ring."
    with pytest.raises(PromptError, match=message):
        engine.answer(Request(**given))


def test_a_share_that_was_not_trained_is_refused(loaded, spec, image):
    with pytest.raises(BudgetError, match="trained for"):
        laconic.read(*loaded, "", f"{spec},keep=0.1", images=[image])
