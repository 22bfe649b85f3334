"""Head scores and layer errors of CompressKV."""

import pytest
import torch
from helpers.reference import slow_attend

from laconic.artifact import Artifact, fingerprint
from laconic.errors import ArtifactError
from laconic.fit import Trainer
from laconic.fit.layer_probe import LayerProbe, greedy
from laconic.fit.needles import Trial, trials
from laconic.methods.cache.compresskv.fit import CompressKVFit, HeadScores, LayerErrors, layer_errors, recall, watched


# line 6
def test_scores_are_the_mass_times_the_number_of_answering_steps():
    prompt = Trial(20, [7, 7, 1, 2, 3, 2, 9, 9], "one two three two", [2, 3, 4, 5])
    attention = torch.zeros(5, 2, 3, 8)  # steps, layers, heads, positions
    attention[..., 2:6] = torch.tensor([0.1, 0.05, 0.0])[None, None, :, None] / 4
    attention[:, 1, 2, 6] = 0.9  # outside of the span
    masses = attention[..., prompt.span].sum(-1)
    found = HeadScores()
    found.add(masses, [1, 2, 8, 2, 9], prompt, "one two three")  # three tokens of the span; the id 2 stands in it twice
    want = 3 * torch.tensor([0.1, 0.05, 0.0]).expand(2, 3)
    torch.testing.assert_close(found.mean(1), want)
    found.add(masses, [1, 2, 2, 2, 2], prompt, "something else")  # a failed trial adds nothing
    found.add(masses, [1, 2, 2, 2, 2], prompt, "one")  # a quarter of the answer
    found.add(masses, [1, 2, 2, 2, 2], prompt, "one two")  # half of it is not more than half
    torch.testing.assert_close(found.mean(4), want)
    found.add(masses, [1, 9, 9, 9, 9], prompt, "one two three two")
    torch.testing.assert_close(found.mean(5), want * 2 / 3)


def test_a_model_that_answers_nothing_is_refused():
    with pytest.raises(ArtifactError, match="none of 4 needle prompts"):
        HeadScores().mean(4)


def test_rouge_1_recall():
    assert recall("The code for falcon is 1.", "The code for falcon is 1.") == 1
    assert recall("the CODE", "The code for falcon is 1.") == 2 / 6
    assert recall("a a a", "a a b b") == 0.5 and recall("", "a") == 0


def test_the_mass_is_the_attention_on_the_span(lm):
    model, tokenizer = lm
    prompt = next(trials(tokenizer, (200,), 2, 1, 5))
    masses, tokens, _, response = watched(model, tokenizer, prompt, 30)
    assert recall(response, prompt.answer) == 1 and masses.shape == (len(tokens), 4, 4)
    model.set_attn_implementation("eager")
    try:
        ids = torch.tensor([prompt.ids + tokens])
        with torch.inference_mode():
            attentions = model(ids, output_attentions=True).attentions
    finally:
        model.set_attn_implementation("sdpa")
    first = len(prompt.ids) - 1
    for layer in range(4):
        want = attentions[layer][0, :, first : first + len(tokens)][..., prompt.span].sum(-1).T
        torch.testing.assert_close(masses[:, layer], want, atol=1e-4, rtol=1e-3)


# line 7
def test_layer_errors_vanish_with_a_full_cache_and_grow_as_it_shrinks(lm):
    model, tokenizer = lm
    prompt = next(trials(tokenizer, (256,), 1, 1, 3))
    sums = []
    for entries in (256, 128, 64, 32, 16):
        meter = LayerErrors(model, [[0, 1, 2, 3]] * 4, entries)
        for _ in greedy(model, tokenizer, prompt.ids, LayerProbe(prefill=meter.cut, token=meter.compare), 20):
            pass
        sums.append([meter.sums[layer] for layer in range(4)])
    assert sums[0] == [0.0] * 4
    for fewer, more in zip(sums[1:], sums, strict=False):
        assert sum(fewer) > sum(more)


def test_the_error_is_of_the_projected_output(llama, prompt):
    """One layer and one decoded token, written out."""
    ids = prompt(1, 30)
    kept, seen_last = {}, {}
    meter = LayerErrors(llama, [[0]] * 4, 20)

    def both(obs):
        seen_last[obs.layer] = obs
        meter.compare(obs)

    class Letters:
        eos_token_id = None

        def decode(self, tokens):
            return "x"

    assert len(list(greedy(llama, Letters(), ids[0].tolist(), LayerProbe(prefill=meter.cut, token=both), 1))) == 1
    for layer in range(4):
        obs = seen_last[layer]
        kept = [*meter.kept[layer].tolist(), 29]
        assert len(kept) == 21
        outs = []
        for k, v in ((obs.keys, obs.values), (obs.keys[:, :, kept], obs.values[:, :, kept])):
            out, _ = slow_attend(obs.queries, k, v, obs.scale)
            outs.append(llama.model.layers[layer].self_attn.o_proj(out.float().transpose(1, 2).flatten(2)))
        want = float((outs[1] - outs[0]).norm() / (outs[0].norm() + 1e-5))
        assert meter.sums[layer] == pytest.approx(want, rel=1e-3)


def test_lengths_weigh_the_same(lm, monkeypatch):
    """Each length is a data set: normalised, averaged, normalised."""
    model, tokenizer = lm
    prompts = list(trials(tokenizer, (128, 256), 1, 1, 0))
    alone = [layer_errors(model, tokenizer, [p], [[0]] * 4, 16, 5) for p in prompts]
    both = layer_errors(model, tokenizer, prompts, [[0]] * 4, 16, 5)
    assert both == pytest.approx([(a + b) / 2 for a, b in zip(*alone, strict=True)], rel=1e-4)
    assert sum(both) == pytest.approx(1)


def test_the_shipped_artifact_is_what_a_fit_gives(lm):
    """A smaller grid than the shipped one's finds the same best heads where there are any, and an artifact that works."""
    model, tokenizer = lm
    shipped = Artifact.load("compresskv-testbed-lm")
    assert shipped.fingerprint == fingerprint(model)
    made = Trainer(CompressKVFit(lengths=(256,), depths=3, needles=2), model, tokenizer).run()
    assert made.data["trials"] == {"needles": 6, "answered": 6}
    assert set(made.data["heads"][3][:2]) == set(shipped.data["heads"][3][:2]) == {0, 1}
    assert made.data["heads"][2][0] == shipped.data["heads"][2][0] == 1
    assert sum(made.data["layer_errors"]) == pytest.approx(1, abs=1e-3)
