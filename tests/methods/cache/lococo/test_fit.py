"""Training of LoCoCo's mixers: what learns, what does not, and that it trains what the session runs."""

import json
import random

import pytest
import torch

import laconic
from laconic import RecipeError, UnsupportedModelError
from laconic.fit.text import IGNORED, TestbedSource, labelled
from laconic.methods.cache.lococo.fit import WEIGHTS, Settings, Training, chunk_losses, chunks, heavy_hitters, mixing
from laconic.methods.cache.lococo.method import LoCoCo
from laconic.methods.cache.lococo.network import load
from laconic.methods.cache.lococo.table import mean_loss

TINY = {"memory": 12, "kernel": 5, "slack": 2, "chunk": 8, "tokens": 40, "batch": 2, "steps": 4, "log_every": 2}


class Repeats:
    """One of few segments again and again: all that comes is in the text before it."""

    def batch(self, seed, step, size, tokens):
        generator = torch.Generator().manual_seed(1000 * seed + step)
        rows = []
        for _ in range(size):
            pool = torch.randint(1, 97, (3, 5), generator=generator)
            picks = torch.randint(0, 3, (tokens // 5 + 1,), generator=generator)
            rows.append(pool[picks].flatten()[:tokens])
        ids = torch.stack(rows)
        return ids, ids.clone()


@pytest.fixture
def model(make_llama):
    return make_llama(layers=2, implementation="eager")


def training(model, out, **given):
    return Training(model, Repeats(), Settings(**TINY | given), out, lambda line: None)


def test_chunks_are_the_model_while_nothing_is_shortened(model, prompt):
    ids = prompt(2, 37)
    got = torch.cat(list(chunks(model, ids, 8, 100, heavy_hitters(12))), 1)
    torch.testing.assert_close(got, model(ids).logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("mode", ["conv", "hh"])
def test_what_is_trained_is_what_a_session_runs(model, prompt, tmp_path, mode):
    made, ids = training(model, tmp_path), prompt(2, 40)
    made.mixers.save(tmp_path / "w.safetensors", torch.float32)
    squeeze = mixing(made.mixers.layers, 6) if mode == "conv" else heavy_hitters(12)
    want = torch.cat([x.detach() for x in chunks(model, ids, 8, 14, squeeze)], 1)
    weights = {"weights": str(tmp_path / "w.safetensors")} if mode == "conv" else {}
    with laconic.compress(model, LoCoCo(memory=12, slack=2, mode=mode, **weights)) as session:
        parts = [model(ids[:, i : i + 8], past_key_values=session.cache).logits for i in range(0, 40, 8)]
    torch.testing.assert_close(torch.cat(parts, 1), want, atol=1e-4, rtol=1e-4)


def test_the_loss_is_that_of_the_next_token_inside_each_chunk(prompt):
    logits = torch.randn(2, 12, 97, generator=torch.Generator().manual_seed(0))
    labels = prompt(2, 12)
    labels[0, 3] = IGNORED
    found = list(chunk_losses(iter(logits.split(5, 1)), labels))
    for start, (loss, count) in zip((0, 5, 10), found, strict=True):
        want = [
            -float(logits[b, i - 1].log_softmax(-1)[labels[b, i]])
            for b in range(2)
            for i in range(start + 1, min(12, start + 5))
            if labels[b, i] != IGNORED
        ]
        assert count == len(want) and float(loss) == pytest.approx(sum(want), rel=1e-5)


# line 6 of the card
def test_gradients_reach_the_mixers_of_the_current_chunk_only(model, prompt, tmp_path):
    made, ids = training(model, tmp_path), prompt(2, 40)
    inner, taken, given = mixing(made.mixers.layers, 6), [], []

    def squeeze(number, keys, values, score):
        taken.append((keys, values, score))
        out = inner(number, keys, values, score)
        out[0].retain_grad()
        given.append(out[0])
        return out

    losses = []
    for number, (loss, _) in enumerate(chunk_losses(chunks(model, ids, 8, 14, squeeze), ids)):
        if number < 4:
            losses.append(loss.requires_grad)
            continue
        before = len(given) - 2
        loss.backward()
    assert losses == [False, False, True, True]  # 8 and 16 stored before chunks 1 and 2: over 14 from chunk 2 on
    assert not any(x.requires_grad for triple in taken for x in triple)
    assert all(x.grad is None for x in given[:before]) and all(float(x.grad.abs().sum()) > 0 for x in given[before:])
    for mixer in made.mixers.layers:
        assert float(mixer.conv.weight.grad.abs().sum()) > 0 and float(mixer.nu.grad.abs()) > 0
    assert all(p.grad is None and not p.requires_grad for p in model.parameters())


def test_a_step_moves_the_mixers_and_nothing_else(model, tmp_path):
    made = training(model, tmp_path)
    frozen = {name: x.clone() for name, x in model.state_dict().items()}
    before = {name: x.clone() for name, x in made.mixers.layers.state_dict().items()}
    made.step()
    assert all(torch.equal(x, frozen[name]) for name, x in model.state_dict().items())
    assert all(not torch.equal(x, before[name]) for name, x in made.mixers.layers.state_dict().items())


def test_groups_schedule_and_clipping(model, tmp_path, monkeypatch):
    made = training(model, tmp_path, lr=1e-3, lr_nu=1e-2)
    norms = []
    original = torch.nn.utils.clip_grad_norm_
    monkeypatch.setattr(
        torch.nn.utils, "clip_grad_norm_", lambda parameters, most: norms.append((most, original(parameters, most)))
    )
    rates = []
    for _ in range(4):
        made.step()
        rates.append([group["lr"] for group in made.optimiser.param_groups])
    assert rates == [pytest.approx([1e-3 * left, 1e-2 * left]) for left in (1, 0.75, 0.5, 0.25)]
    assert [most for most, _ in norms] == [1.0] * 4
    sizes = [sum(p.numel() for p in group["params"]) for group in made.optimiser.param_groups]
    assert sizes == [2 * (16 * 6 * 5 + 6), 2] and all(group["weight_decay"] == 0 for group in made.optimiser.param_groups)


def test_a_resumed_training_ends_where_an_unbroken_one_does(model, tmp_path):
    for name in ("whole", "broken"):
        (tmp_path / name).mkdir()
    whole = training(model, tmp_path / "whole")
    whole.run()
    broken = training(model, tmp_path / "broken")
    broken.step()
    broken.step()
    broken.save()
    again = training(model, tmp_path / "broken")
    again.resume()
    assert again.done == 2
    again.run()
    for name, tensor in whole.mixers.layers.state_dict().items():
        assert torch.equal(again.mixers.layers.state_dict()[name], tensor)
    assert (tmp_path / "whole" / WEIGHTS).read_bytes() == (tmp_path / "broken" / WEIGHTS).read_bytes()
    assert [line.split(" loss")[0] for line in (tmp_path / "whole" / "train.log").read_text().splitlines()] == [
        "step 2",
        "step 4",
    ]


def test_resuming_needs_a_checkpoint_of_the_same_settings(model, tmp_path):
    made = training(model, tmp_path)
    with pytest.raises(RecipeError, match="no checkpoint"):
        made.resume()
    made.step()
    made.save()
    assert json.loads((tmp_path / "trainer.json").read_text())["state"]["done"] == 1
    with pytest.raises(RecipeError, match=r"other settings \(chunk\)"):
        training(model, tmp_path, chunk=10).resume()
    training(model, tmp_path, steps=9).resume()  # longer is fine


def test_the_weights_say_what_they_are_for(model, tmp_path):
    made = training(model, tmp_path, init="normal", keep_rate=0.25)
    made.save()
    found = load(tmp_path / WEIGHTS)
    assert (found.memory, found.slots) == (12, 9)
    assert found.fingerprint == made.mixers.fingerprint and found.made["settings"]["chunk"] == 8


def test_other_layers_are_refused(tmp_path):
    from helpers.zoo import MIXED, Tiny

    model = Tiny("Gemma2", {"layer_types": MIXED, "sliding_window": 16, "query_pre_attn_scalar": 16}).build()
    with pytest.raises(UnsupportedModelError, match="not full attention"):
        training(model, tmp_path)


# line 8 of the card
@pytest.mark.slow
def test_after_a_short_training_on_repeats_it_beats_heavy_hitters(tmp_path):
    """The small-model recipe on segments that come again and again; both losses on sequences never trained on."""
    model, tokenizer = laconic.load("testbed/lm")
    model.set_attn_implementation("eager")
    mixture = TestbedSource(tokenizer).mixture

    class Segments:
        def examples(self, name, size, tokens):
            rng = random.Random(name)
            return [mixture.induction(rng, tokens, 4000) for _ in range(size)]

        def batch(self, seed, step, size, tokens):
            return labelled(self.examples(f"{seed}-{step}", size, tokens), tokens)

    given = {"memory": 32, "kernel": 7, "chunk": 32, "slack": 4, "tokens": 256, "batch": 4, "lr": 1e-2, "lr_nu": 1e-2}
    made = Training(model, Segments(), Settings(steps=200, **given), tmp_path, lambda line: None)
    for _ in range(200):
        made.step()
    unseen = Segments().examples("unseen", 16, 256)
    full, hh, conv = (
        mean_loss(model, unseen, 256, 32, 36, way) for way in (None, heavy_hitters(32), mixing(made.mixers.layers, 16))
    )
    assert full < conv < hh


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"init": "zeros"}, "choose 'standard' or 'normal'"),
        ({"kernel": 4}, "kernel=4 must be odd"),
        ({"memory": 1}, "must have both"),
        ({"slack": -1}, "slack=-1 must be at least 0"),
        ({"lr": 0.0}, "lr=0.0 must be positive"),
    ],
)
def test_settings_that_make_no_sense(given, message):
    with pytest.raises(ValueError, match=message):
        Settings(**TINY | given)
