"""A batch of equally long prompts gives every sample what it gets alone."""

import pytest

from laconic.bench.asking import Asked
from laconic.bench.grid import Grid, Place
from laconic.bench.images import ImageAsking
from laconic.method import create_method
from laconic.tasks import find_task

METHODS = (None, "test_first:keep=0.25", "snapkv:keep=0.5,window=8")

pytestmark = pytest.mark.usefixtures("token_methods")


@pytest.fixture(scope="module")
def batch():
    """Three samples whose prompts are equally long."""
    by_length: dict[int, list] = {}
    for sample in find_task("count").samples(0, 12):
        by_length.setdefault(len(sample.question.split()), []).append(sample)
    return max(by_length.values(), key=len)[:3]


def asked(vlm, samples, spec, new_tokens=4):
    asking = ImageAsking(*vlm, "small", Grid(("count",), ("random",)), 16)
    given = [Asked(Place("count", 0, "images", s.number), find_task("count"), s, s.shown()) for s in samples]
    assert bool(asking._inputs(given)["attention_mask"].all())
    return asking._answer(given, spec and create_method(spec), new_tokens)


@pytest.mark.parametrize("spec", METHODS)
def test_answers_and_figures_are_those_of_a_sample_alone(vlm, batch, spec):
    together = asked(vlm, batch, spec)
    for sample, answer in zip(batch, together, strict=True):
        (alone,) = asked(vlm, [sample], spec)
        assert answer.ids == alone.ids and answer.text == alone.text
        for figure in (
            "tokens_in",
            "kv_bytes",
            "kv_bytes_full",
            "prefill_flops",
            "prefill_flops_full",
            "achieved",
            "visual_in",
        ):
            assert getattr(answer.prompt, figure) == pytest.approx(getattr(alone.prompt, figure), rel=1e-6), figure


def test_figures_are_of_the_prompt_when_its_answer_begins(vlm, batch):
    plain, cut = asked(vlm, batch, None)[0], asked(vlm, batch, "test_first:keep=0.25")[0]
    assert plain.prompt.tokens_in == cut.prompt.tokens_in > 144
    assert cut.prompt.visual_in == 144 and cut.prompt.achieved == 0.25
    text = plain.prompt.tokens_in - 144
    assert cut.prompt.kv_bytes / cut.prompt.kv_bytes_full == pytest.approx((36 + text) / (144 + text))
    assert cut.prompt.prefill_flops < 0.5 * plain.prompt.prefill_flops == 0.5 * cut.prompt.prefill_flops_full
    assert cut.final.kv_bytes > cut.prompt.kv_bytes and plain.final.kv_bytes > plain.prompt.kv_bytes


def test_an_answer_ends_with_its_turn(vlm, batch, monkeypatch):
    model, _ = vlm
    ids = [answer.ids for answer in asked(vlm, batch, None, 6)]
    monkeypatch.setattr(model.generation_config, "eos_token_id", ids[0][1])
    first = asked(vlm, batch, None, 6)[0]
    assert first.ids == ids[0][: ids[0].index(ids[0][1]) + 1]
