"""A watch changes nothing, leaves nothing, and says what it cannot know."""

import pytest
import torch
from helpers.vision_zoo import CASES, IMAGE

import laconic
from laconic import SessionError, SnapKV
from laconic.families.vision import VisionWatch
from laconic.families.vision.watch import positions_of, runs_of

GENERATE = {"max_new_tokens": 4, "do_sample": False, "output_logits": True, "return_dict_in_generate": True}


def hooks(model):
    return [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()]


@pytest.mark.parametrize("name", CASES)
def test_nothing_changes_and_nothing_stays(vlm, name):
    case, model = CASES[name], vlm(name)
    inputs = case.inputs([[case.image(1)], [case.image(2), case.image(3)]])
    before = torch.stack(model.generate(**inputs, **GENERATE).logits)
    installed = hooks(model)
    with VisionWatch(model, layers=(0, -1)) as watch:
        during = torch.stack(model.generate(**inputs, **GENERATE).logits)
        assert watch.visual is None, "the last pass decoded one token"
        assert hooks(model) != installed
    assert hooks(model) == installed
    assert torch.equal(before, during)
    assert torch.equal(before, torch.stack(model.generate(**inputs, **GENERATE).logits))


def test_hooks_go_after_an_error(vlm):
    case, model = CASES["llava"], vlm("llava")
    inputs = case.inputs([[case.image(1)]])
    model.generate(**inputs, max_new_tokens=1)
    installed = hooks(model)
    with pytest.raises(ValueError, match="do not match"), VisionWatch(model) as watch:
        model(**inputs | {"pixel_values": inputs["pixel_values"].repeat(2, 1, 1, 1)})
    assert watch._here.calls == [] and hooks(model) == installed


def test_text_alone_has_no_images(vlm, seen):
    inputs = CASES["qwen2_vl"].inputs([[], []])
    assert seen(vlm("qwen2_vl"), inputs) is None


def test_a_pass_after_a_failed_one_sees_its_own_images(vlm, seen):
    case, model = CASES["llava"], vlm("llava")
    first, second = case.inputs([[case.image(1)]]), case.inputs([[case.image(2)]])
    expected = seen(model, second)
    with VisionWatch(model) as watch:
        model.model.get_image_features(first["pixel_values"])  # encoded, never fed
        model(**second)
        assert torch.equal(watch.visual.features(watch.visual.spans[0]), expected.features(expected.spans[0]))


@pytest.mark.parametrize("name", ["llava", "qwen3_vl"])
def test_features_of_other_origin_are_refused(vlm, name):
    case, model = CASES[name], vlm(name)
    inputs = case.inputs([[case.image(1)]])
    media = {k: inputs.pop(k) for k in ("pixel_values", "image_grid_thw") if k in inputs}
    features = model.base_model.get_image_features(**media, return_dict=True)
    message = r"image features were computed before .* pass pixel_values instead"
    with pytest.raises(SessionError, match=message), VisionWatch(model):
        model(**inputs, mm_encoder_outputs={"image": features})


def test_embeddings_instead_of_ids_are_refused(vlm):
    case, model = CASES["llava"], vlm("llava")
    inputs = case.inputs([[case.image(1)]])
    inputs["inputs_embeds"] = model.get_input_embeddings()(inputs.pop("input_ids"))
    with pytest.raises(SessionError, match="pass input_ids, not inputs_embeds"), VisionWatch(model):
        model(**inputs)


@pytest.mark.parametrize("name", ["llava", "llava_next", "llava_onevision", "internvl"])
def test_beside_a_session(vlm, seen, name):
    """A session on the decoder and a watch on the encoder do not meet: same images, same logits as the session alone."""
    case, model = CASES[name], vlm(name)
    inputs = case.inputs([[case.image(1)], [case.image(2), case.image(3)]])
    expected = seen(model, inputs)
    with laconic.compress(model, SnapKV(keep=0.5, window=4)):
        alone = torch.stack(model.generate(**inputs, **GENERATE).logits)
        visual = seen(model, inputs)
        with VisionWatch(model):
            both = torch.stack(model.generate(**inputs, **GENERATE).logits)
    assert torch.equal(alone, both)
    assert [span.tokens.tolist() for span in visual.spans] == [span.tokens.tolist() for span in expected.spans]


@pytest.mark.parametrize("name", ["llava", "qwen2_vl"])
def test_chunked_prefill_is_refused(vlm, name):
    """transformers up to 5.19 answers as if there were no images; later ones encode them before anything is watched."""
    case, model = CASES[name], vlm(name)
    with pytest.raises(SessionError, match="no prefill_chunk_size"), VisionWatch(model):
        model.generate(**case.inputs([[case.image(1)]]), **GENERATE, prefill_chunk_size=8)


def test_positional_arguments(vlm):
    case, model = CASES["llava"], vlm("llava")
    inputs = case.inputs([[case.image(1)]])
    with VisionWatch(model) as watch:
        model(inputs["input_ids"], inputs["pixel_values"], inputs["attention_mask"])
        assert watch.visual.mask.sum() == (inputs["input_ids"] == IMAGE).sum() == 16


def test_runs():
    mask = torch.tensor([[1, 1, 0, 1], [0, 0, 0, 0], [0, 1, 1, 1]]).bool()
    assert runs_of(mask) == [[2, 1], [], [3]]


def test_positions_by_shape():
    ids = torch.zeros(2, 5, dtype=torch.long)
    assert positions_of(None, ids).tolist() == [[[0, 1, 2, 3, 4]]]
    flat = torch.arange(10).view(2, 5)
    assert torch.equal(positions_of(flat, ids), flat[None])
    four = torch.arange(40).view(4, 2, 5)
    assert torch.equal(positions_of(four, ids), four[1:])
    assert torch.equal(positions_of(four[1:], ids), four[1:])
