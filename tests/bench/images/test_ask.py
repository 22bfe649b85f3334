"""A batch of equally long prompts gives every sample what it gets alone."""

import pytest

from laconic.bench.images.ask import answer
from laconic.method import create_method
from laconic.prompts.batch import encode
from laconic.tasks.scenes.suite import scenes

METHODS = (None, "test_first:keep=0.25", "snapkv:keep=0.5,window=8")


@pytest.fixture(scope="module")
def batch():
    """Three samples whose prompts are equally long."""
    suite = scenes("count")
    found = [suite.sample(1_000_000 + i) for i in range(12)]
    by_length: dict[int, list] = {}
    for sample in found:
        by_length.setdefault(len(sample.question.split()), []).append(sample)
    return max(by_length.values(), key=len)[:3]


def asked(vlm, samples, spec, new_tokens=4):
    model, processor = vlm
    inputs = encode(processor, [s.question for s in samples], [s.image() for s in samples])
    assert bool(inputs["attention_mask"].all())
    return answer(model, processor, inputs, spec and create_method(spec), new_tokens)


@pytest.mark.parametrize("spec", METHODS)
def test_answers_and_figures_are_those_of_a_sample_alone(vlm, batch, spec):
    together = asked(vlm, batch, spec)
    for sample, outcome in zip(batch, together, strict=True):
        (alone,) = asked(vlm, [sample], spec)
        assert outcome.answers[0].ids == alone.answers[0].ids and outcome.answers[0].text == alone.answers[0].text
        for figure in (
            "tokens_in",
            "kv_bytes",
            "kv_bytes_full",
            "prefill_flops",
            "prefill_flops_full",
            "achieved",
            "visual_in",
        ):
            assert getattr(outcome.prompt, figure) == pytest.approx(getattr(alone.prompt, figure), rel=1e-6), figure


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
    ids = [outcome.answers[0].ids for outcome in asked(vlm, batch, None, 6)]
    monkeypatch.setattr(model.generation_config, "eos_token_id", ids[0][1])
    first = asked(vlm, batch, None, 6)[0].answers[0]
    assert first.ids == ids[0][: ids[0].index(ids[0][1]) + 1]
