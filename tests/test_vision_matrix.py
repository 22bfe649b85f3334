"""Every method on visual tokens against every case that a user may bring. What a method keeps is tested elsewhere."""

import copy

import pytest
import torch
from helpers import video_tools, vision_tools
from helpers.flops import counted
from helpers.live import addresses, live
from helpers.vision_tools import COARSE, FIXED, LASTING, METHODS, laconic_hooks, made_for
from helpers.vision_tools import method as method_of

import laconic
from laconic.testbed.vlm_model import VISUAL_TOKENS as V

NEW = 4
GREEDY = {"max_new_tokens": NEW, "do_sample": False, "return_dict_in_generate": True, "output_logits": True}

every_method = pytest.mark.parametrize("name", METHODS)


def logits(output):
    return torch.stack(output.logits)  # [new, B, vocabulary]


@pytest.fixture(scope="module")
def method(vlm, tmp_path_factory):
    """Methods that suit the random model: `method(name, keep=0.5)`."""
    made = made_for(vlm, tmp_path_factory.mktemp("made"))
    return lambda name, **budget: method_of(name, made, **budget)


@pytest.fixture(scope="module")
def video_model():
    return video_tools.random_video_model()


@pytest.fixture
def model(name, vlm, video_model):
    """What a method is meant for: a model that reads images, or one that reads videos."""
    return video_model if name in video_tools.METHODS else vlm


@pytest.fixture
def inputs(name):
    return video_tools.inputs if name in video_tools.METHODS else vision_tools.inputs


@pytest.fixture(scope="module")
def plain(vlm, video_model):
    """Prompts and the model's own answer, for images and for videos."""
    found = {}
    for model, tools in ((vlm, vision_tools), (video_model, video_tools)):
        given = tools.inputs([(3, 9), (8, 4)])
        found[model] = given, model.generate(**given, **GREEDY)
    return found


def pixels(given):
    """The name of the pixels in a model's inputs."""
    return next(key for key in given if key.startswith("pixel"))


@every_method
def test_neutral_setting_reproduces_the_model(model, plain, method, name):
    given, want = plain[model]
    with laconic.compress(model, method(name, keep=1.0)) as session:
        got = model.generate(**given, **GREEDY)
    assert torch.equal(got.sequences, want.sequences)
    torch.testing.assert_close(logits(got), logits(want), atol=1e-5, rtol=1e-5)
    assert session.stats.achieved == 1 and not session.trace.events and laconic_hooks(model) == []


@every_method
@pytest.mark.parametrize("keep", [0.75, 0.5])
def test_budgets_are_met_and_compute_is_saved(model, plain, method, name, keep):
    given, want = plain[model]
    with laconic.compress(model, method(name, keep=keep)) as session:
        got = model.generate(**given, **GREEDY)
    stats = session.stats
    assert stats.visual_in == V and stats.achieved < 1
    if name not in FIXED:
        assert stats.asked == pytest.approx(keep) == pytest.approx(stats.achieved, abs=2 / V)
    elif name != "dyvte":
        least = 0 if name in COARSE else keep / 2
        assert least < stats.achieved <= stats.asked == pytest.approx(keep)
    assert stats.prefill_flops < stats.prefill_flops_full and stats.kv_bytes < stats.kv_bytes_full
    texts = given["attention_mask"].sum(-1).float().mean() - V
    for layer, cached in zip(stats.layers, stats.entries, strict=True):
        assert cached == pytest.approx(stats.visual[layer] + float(texts) + NEW - 1)
    assert (logits(got) - logits(want)).abs().max() > 1e-3
    assert laconic_hooks(model) == []


def encoding(model, given):
    """FLOPs of the encoder and the projector on what is shown, by operation."""
    encode = model.get_image_features if "pixel_values" in given else model.get_video_features
    with counted() as found:
        encode(given[pixels(given)])
    return found


@pytest.mark.slow
@every_method
@pytest.mark.parametrize("keep", [0.75, 0.5])
def test_reported_flops_are_all_that_ran(model, inputs, method, name, keep):
    """Beside those of encoder and projector, which are left out. Merging inside the encoder saves some of these, and the
    matching is the method's: nothing else in it multiplies matrices in batches."""
    given, chosen = inputs([(5, 9)]), method(name, keep=keep)
    with torch.inference_mode(), laconic.compress(model, chosen, count_flops=True) as session:
        with counted() as ran:
            model(**given, logits_to_keep=1)
        encoder = encoding(model, given)
    if name in ("diffrate", "tome"):
        assert encoder.pop("aten.bmm") > 0
    assert session.stats.prompt_flops == pytest.approx(ran.total() - encoder.total(), rel=0.005)


@every_method
def test_a_padded_batch_equals_single_runs(model, inputs, method, name):
    given = inputs([(3, 9), (8, 4)])
    with laconic.compress(model, method(name, keep=0.5)):
        both = model.generate(**given, **GREEDY)
    for row in range(2):
        own = given["attention_mask"][row] == 1
        alone = {"input_ids": given["input_ids"][row : row + 1, own], pixels(given): given[pixels(given)][row : row + 1]}
        with laconic.compress(model, method(name, keep=0.5)):
            single = model.generate(**alone, **GREEDY)
        torch.testing.assert_close(logits(both)[:, row], logits(single)[:, 0], atol=1e-4, rtol=1e-4)


@every_method
def test_several_images(model, inputs, method, name):
    given = inputs([(3, 9)], images=2)
    with laconic.compress(model, method(name, keep=0.5)) as session:
        assert bool(logits(model.generate(**given, **GREEDY)).isfinite().all())
    assert session.stats.visual_in == 2 * V
    assert (
        session.stats.achieved <= 0.5 + 2 / V if name in FIXED else session.stats.achieved == pytest.approx(0.5, abs=2 / V)
    )


@every_method
def test_beams_and_sampling(model, inputs, method, name):
    given = inputs([(3, 9)])
    with laconic.compress(model, method(name, keep=0.5)) as session:
        beams = model.generate(**given, max_new_tokens=NEW, num_beams=3, do_sample=False)
        stored = {layer.stored for layer in session.cache.compressed()}
        drawn = model.generate(**given, max_new_tokens=NEW, do_sample=True)
    assert beams.shape == drawn.shape and max(stored) < given["input_ids"].shape[1] + NEW


@every_method
def test_a_second_turn_on_the_same_cache(model, inputs, method, name):
    given = inputs([(3, 9)])
    with laconic.compress(model, method(name, keep=0.5)) as session:
        first = model.generate(**given, **GREEDY)
        stored = [layer.stored for layer in session.cache.compressed()]
        more = torch.cat([first.sequences, torch.randint(10, 400, (1, 6))], 1)
        second = model.generate(more, past_key_values=session.cache, **GREEDY)
        assert bool(logits(second).isfinite().all())
        assert [layer.stored for layer in session.cache.compressed()] == [n + 6 + NEW for n in stored]


@every_method
def test_a_second_turn_equals_one_prompt_fed_at_once(model, inputs, method, name):
    """What the first turn left behind is what a plain continuation sees: positions go on where they should."""
    given = inputs([(3, 9)])
    more = torch.randint(10, 400, (1, 5))
    with laconic.compress(model, method(name, keep=0.5)) as session:
        model(**given)
        together = model(input_ids=more, past_key_values=session.cache).logits[:, -1]
    with laconic.compress(model, method(name, keep=0.5)) as session:
        model(**given)
        for token in more.split(1, 1):
            one = model(input_ids=token, past_key_values=session.cache).logits[:, -1]
    torch.testing.assert_close(one, together, atol=1e-4, rtol=1e-4)


@pytest.mark.slow
@every_method
@pytest.mark.parametrize("behind", ["snapkv:tokens=30,window=4", "kivi:group=8,residual=16"])
def test_with_a_cache_method_behind_it(model, inputs, method, name, behind):
    given = inputs([(3, 9)])
    with laconic.compress(model, method(name, keep=0.5), laconic.create_method(behind)) as session:
        assert bool(logits(model.generate(**given, **GREEDY)).isfinite().all())
    stats = session.stats
    assert stats.kv_bytes < 0.5 * stats.kv_bytes_full


@every_method
def test_bf16(model, inputs, method, name):
    model = copy.deepcopy(model).to(torch.bfloat16)
    given = inputs([(3, 9)])
    given[pixels(given)] = given[pixels(given)].to(torch.bfloat16)
    with laconic.compress(model, method(name, keep=0.5)) as session:
        assert bool(logits(model.generate(**given, **GREEDY)).isfinite().all())
    assert session.cache.layers[0].parts[0].padded()[0].dtype == torch.bfloat16


@every_method
def test_text_alone_is_left_alone(model, inputs, method, name):
    ids = torch.randint(10, 400, (1, 20))
    want = model(input_ids=ids).logits
    with laconic.compress(model, method(name, keep=0.5)):
        torch.testing.assert_close(model(input_ids=ids).logits, want, atol=1e-5, rtol=1e-5)


@every_method
def test_an_error_inside_restores_the_model(model, inputs, method, name):
    given = inputs([(3, 9)])
    want = model(**given).logits
    with pytest.raises(RuntimeError, match="mine"), laconic.compress(model, method(name, keep=0.5)):
        model(**given)
        raise RuntimeError("mine")
    assert laconic_hooks(model) == []
    torch.testing.assert_close(model(**given).logits, want, atol=0, rtol=0)


@every_method
def test_a_saved_context_goes_on_as_before(model, inputs, method, name, tmp_path):
    given = inputs([(3, 9)])
    more = torch.randint(10, 400, (1, 5))
    with laconic.compress(model, method(name, keep=0.5)) as session:
        model(**given)
        session.save_cache(tmp_path / "context.safetensors")
        want = model(input_ids=more, past_key_values=session.cache).logits
    saved = laconic.load_cache(tmp_path / "context.safetensors", model)
    with laconic.compress(model, *(saved.methods if name in LASTING else ())):
        got = model(input_ids=more, past_key_values=saved.cache()).logits
    torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)


@every_method
def test_nothing_of_the_images_stays_in_memory(model, inputs, method, name):
    """After the prompt, a decoded token and the session, only what is reported stays: the encoder's features are larger."""
    given, chosen = inputs([(3, 9), (8, 4)]), method(name, keep=0.5)

    def check():
        held = live(session, session.cache, besides=besides)
        assert sum(held.values()) == session.cache.allocated, {path: n for path, n in held.items() if ".parts[" not in path}

    with laconic.compress(model, chosen) as session:
        besides = addresses(model, chosen)
        model(**given)
        check()
        mask = torch.cat([given["attention_mask"], torch.ones(2, 1, dtype=torch.long)], 1)
        model(input_ids=torch.full((2, 1), 20), attention_mask=mask, past_key_values=session.cache)
        check()
    check()
