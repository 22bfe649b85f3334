"""Prompts with images: ids as the processor makes them, the cut after the context, places for images, templates."""

import pytest
import torch
from helpers import fake_processors as processors
from helpers.image_files import noise

from laconic.errors import MediaError
from laconic.prompts import media as media
from laconic.prompts.text import JOINT, PromptError
from laconic.testbed.vlm_model import SPECIALS, VISUAL_TOKENS, build_processor, build_tokenizer

IMAGE = SPECIALS.index("<image>")
LLAVA = (
    "{% for m in messages %}{% if m['role'] == 'user' %}USER: {% else %}ASSISTANT: {% endif %}"
    "{% for part in m['content'] %}{% if part['type'] == 'image' %}<image>\n{% endif %}{% endfor %}"
    "{% for part in m['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }} {% endif %}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
INTERLEAVED = (
    "{{ bos_token }}{% for m in messages %}<|{{ m['role'] }}|>{% for part in m['content'] %}"
    "{% if part['type'] == 'image' %}[<image>]{% else %}{{ part['text'] }}{% endif %}{% endfor %}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


@pytest.fixture
def processor(tokenizer):
    return build_processor(tokenizer)


@pytest.mark.parametrize("template", [None, LLAVA, INTERLEAVED])
@pytest.mark.parametrize("prefix", ["", "the circle is"])
def test_ids_and_pixels_are_those_of_the_processor(processor, template, prefix):
    """As transformers' own call on the whole conversation."""
    processor.chat_template = template or processor.chat_template
    images = [noise(), noise(40, 30, 1)]
    question = "what color is the circle?"
    found = media.build(processor, images, "", question, answer_prefix=prefix, system="answer")
    content = [*({"type": "image", "image": image} for image in images), {"type": "text", "text": question}]
    chat = [{"role": "system", "content": [{"type": "text", "text": "answer"}]}, {"role": "user", "content": content}]
    chat += [{"role": "assistant", "content": [{"type": "text", "text": prefix}]}] if prefix else []
    whole = processor.apply_chat_template(
        chat,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        add_generation_prompt=not prefix,
        continue_final_message=bool(prefix),
    )
    assert found.ids == whole["input_ids"][0].tolist() and found.templated
    assert set(found.inputs) == {"pixel_values"} and torch.equal(found.inputs["pixel_values"], whole["pixel_values"])
    assert found.ids.count(IMAGE) == 2 * VISUAL_TOKENS


@pytest.mark.parametrize("count", [1, 2, 5])
def test_several_images_are_those_of_one_row(processor, monkeypatch, count):
    """As in a chat template's own call, which hands over a list per conversation: LLaVA-OneVision crops an image that is
    alone in its row, and shows one view each of several."""
    handed = []
    call = type(processor.image_processor).__call__
    monkeypatch.setattr(
        type(processor.image_processor),
        "__call__",
        lambda self, images, *args, **options: handed.append(images) or call(self, images, *args, **options),
    )
    media.build(processor, [noise(90, 60, seed) for seed in range(count)], "", "what color?")
    found = processors.onevision_images()(handed[0], return_tensors="pt")
    assert found["batch_num_images"].tolist() == [count]
    crops = found["pixel_values"].shape[1] - 1
    assert len(found["pixel_values"]) == count and (crops > 0) == (count == 1)


@pytest.mark.parametrize("template", [None, LLAVA, INTERLEAVED])
def test_the_context_ends_after_its_text_and_the_images(processor, tokenizer, template):
    processor.chat_template = template or processor.chat_template
    found = media.build(processor, [noise()], "the red circle", "what color?")
    head = tokenizer.decode([t for t in found.context if t != IMAGE])
    tail = tokenizer.decode(found.question)
    assert head.rstrip().endswith("the red circle") and (JOINT + "what color?").strip() in tail
    assert found.context.count(IMAGE) == VISUAL_TOKENS and IMAGE not in found.question
    bare = media.build(processor, [noise()], "", "what color?")
    assert bare.context[-1] == IMAGE and bare.context.count(IMAGE) == VISUAL_TOKENS
    assert "what color?" in tokenizer.decode(bare.question)


def test_the_cut_is_the_same_whatever_the_question(processor):
    """What is compressed before the question is known must not depend on it."""
    prompts = [media.build(processor, [noise()], "the circle", question) for question in ("what?", "  how many?", "?")]
    assert prompts[0].context == prompts[1].context == prompts[2].context


def test_a_context_alone(processor, tokenizer):
    found = media.build(processor, [noise()], "the red circle \n")
    assert tokenizer.decode(found.context).endswith("circle") and len(found.question) == 2


@pytest.mark.parametrize("place", ["<image>"])
def test_images_stand_where_the_text_says(processor, tokenizer, place):
    processor.chat_template = INTERLEAVED
    found = media.build(processor, [noise(), noise(seed=1)], "", f"what color is {place} and {place} here?")
    words = tokenizer.decode(found.ids).replace("<image>" * VISUAL_TOKENS, "#")
    assert "what color is [#] and [#] here?" in words
    assert found.context[-1] == IMAGE and IMAGE not in found.question


@pytest.mark.parametrize(("text", "count"), [("<image> what?", 2), ("<image> and <image>?", 1), ("<image>?", 0)])
def test_places_and_images_must_be_as_many(processor, text, count):
    with pytest.raises(MediaError, match=rf"the text has {text.count('<')} places? for images .*, and {count} w"):
        media.build(processor, [noise()] * count, "", text)


def test_without_images_the_prompt_is_text(processor, tokenizer):
    found = media.build(processor, [], "the circle", "what color?")
    assert IMAGE not in found.ids and found.inputs == {}
    assert (
        found.ids
        == tokenizer.apply_chat_template(
            [{"role": "user", "content": "the circle" + JOINT + "what color?"}], add_generation_prompt=True
        )["input_ids"]
    )


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{% for m in messages %}{{ m['content'] }}{% endfor %}", "takes plain text only"),
        (
            "{% for m in messages %}{{ m['content'] | map(attribute='text') | join }}{% endfor %}",
            "no place for images",
        ),
        ("{{ raise_exception('one image, please') }}", "refuses the turns .*one image, please"),
        (
            "<image><image>{% for m in messages %}{{ m['content'] | map(attribute='text') | join | upper }}"
            "{{ m['content'] | map(attribute='text') | join | length }}{% endfor %}",
            "changes the user's text",
        ),
        (None, "has no chat template"),
    ],
)
def test_templates_that_show_no_images(processor, template, words):
    processor.chat_template = template
    with pytest.raises(PromptError, match=words):
        media.build(processor, [noise()] * 2, "a circle", "what color?")


def test_nothing_to_ask(processor):
    with pytest.raises(PromptError, match="prompt is empty"):
        media.build(processor, [noise()], " ", "")


def test_what_a_processor_refuses(processor, monkeypatch):
    def refuse(*args, **kwargs):
        raise ValueError("absolute aspect ratio must be smaller than 20")

    monkeypatch.setattr(type(processor.image_processor), "__call__", refuse)
    with pytest.raises(MediaError, match="LlavaProcessor refuses the images: absolute aspect ratio"):
        media.build(processor, [noise()], "", "what?")
