"""Training of LoCoCo's mixers: what learns, what does not, and that it trains what the session runs."""

import random
from dataclasses import dataclass

import pytest
import torch
from safetensors.torch import load_file

import laconic
from laconic import UnsupportedModelError
from laconic.artifact import Artifact, fingerprint, numbers
from laconic.fit import Trainer
from laconic.fit.checkpoint import CHECKPOINT
from laconic.fit.text import IGNORED, TestbedSource, labelled
from laconic.fit.trainer import step
from laconic.methods.cache.lococo.fit import LoCoCoFit, chunk_losses, chunks, heavy_hitters, mixing
from laconic.methods.cache.lococo.method import LoCoCo
from laconic.methods.cache.lococo.network import load, slots_of
from laconic.methods.cache.lococo.table import mean_loss

TINY = {"memory": 12, "kernel": 5, "slack": 2, "chunk": 8, "tokens": 40, "batch_size": 2, "steps": 4, "log_every": 2}


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


@dataclass(kw_only=True)
class Repeated(LoCoCoFit):
    """Trains on `Repeats`."""

    def source_of(self, tokenizer):
        return Repeats()


def built(model, **given):
    """A fit of fresh mixers, before its first step."""
    fit = Repeated(**TINY | given)
    torch.manual_seed(fit.seed)
    fit.build(model, None)
    return fit


def test_chunks_are_the_model_while_nothing_is_shortened(model, prompt):
    ids = prompt(2, 37)
    got = torch.cat(list(chunks(model, ids, 8, 100, heavy_hitters(12))), 1)
    torch.testing.assert_close(got, model(ids).logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("mode", ["conv", "hh"])
def test_what_is_trained_is_what_a_session_runs(model, prompt, tmp_path, mode):
    fit, ids = built(model), prompt(2, 40)
    Artifact.of("lococo", "trained", model, fit.facts(), numbers(fit.layers)).save(tmp_path / "w.safetensors")
    squeeze = mixing(fit.layers, 6) if mode == "conv" else heavy_hitters(12)
    want = torch.cat([x.detach() for x in chunks(model, ids, 8, 14, squeeze)], 1)
    artifact = {"artifact": str(tmp_path / "w.safetensors")} if mode == "conv" else {}
    with laconic.compress(model, LoCoCo(memory=12, slack=2, mode=mode, **artifact)) as session:
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
def test_gradients_reach_the_mixers_of_the_current_chunk_only(model, prompt):
    fit, ids = built(model), prompt(2, 40)
    inner, taken, given = mixing(fit.layers, 6), [], []

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
    for mixer in fit.layers:
        assert float(mixer.conv.weight.grad.abs().sum()) > 0 and float(mixer.nu.grad.abs()) > 0
    assert all(p.grad is None and not p.requires_grad for p in model.parameters())


def test_a_step_moves_the_mixers_and_nothing_else(model):
    fit = built(model)
    frozen = {name: x.clone() for name, x in model.state_dict().items()}
    before = {name: x.clone() for name, x in fit.layers.state_dict().items()}
    step(fit, fit.layers, fit.optimizer(fit.layers), 0)
    assert all(torch.equal(x, frozen[name]) for name, x in model.state_dict().items())
    assert all(not torch.equal(x, before[name]) for name, x in fit.layers.state_dict().items())


def test_the_terms_of_a_step_are_the_mean_loss_of_its_chunks(model):
    fit = built(model)
    ids, labels = fit.batch(0)
    terms = list(fit.loss((ids, labels)))
    found = list(chunk_losses(chunks(model, ids, 8, 14, fit.squeeze), labels))
    count = int((labels != IGNORED).sum())
    assert [float(x.detach()) for x in terms] == pytest.approx([float(loss.detach()) / count for loss, _ in found])
    assert [x.requires_grad for x in terms] == [False, False, True, True, True]


def test_groups_schedule_and_clipping(model):
    fit = built(model, lr=1e-3, lr_nu=1e-2)
    optimizer = fit.optimizer(fit.layers)
    assert [group["lr"] for group in optimizer.param_groups] == [1e-3, 1e-2]
    assert [fit.rate(number) for number in range(4)] == [1, 0.75, 0.5, 0.25] and fit.clip == 1.0
    sizes = [sum(p.numel() for p in group["params"]) for group in optimizer.param_groups]
    assert sizes == [2 * (16 * 6 * 5 + 6), 2] and all(group["weight_decay"] == 0 for group in optimizer.param_groups)


def test_a_resumed_training_ends_where_an_unbroken_one_does(model, tmp_path, monkeypatch):
    lines, given = [], TINY | {"save_every": 2}
    whole = Trainer(Repeated(**given), model, None, tmp_path / "whole", lines.append).run()
    assert [line.split(" loss")[0] for line in lines] == ["step 2", "step 4"] and " nu 0." in lines[0]
    original = Repeats.batch

    def stops(self, seed, step, size, tokens):
        if step == 3:
            raise KeyboardInterrupt
        return original(self, seed, step, size, tokens)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Repeats, "batch", stops)
        Trainer(Repeated(**given), model, None, tmp_path / "broken").run()
    again = Trainer(Repeated(**given), model, None, tmp_path / "broken").run(resume=True)
    assert again == whole and all(torch.equal(x, again.tensors[name]) for name, x in whole.tensors.items())
    exact = [load_file(tmp_path / name / CHECKPOINT) for name in ("whole", "broken")]
    assert all(torch.equal(x, exact[1][name]) for name, x in exact[0].items())


def test_the_artifact_says_what_it_is_for(model):
    found = Trainer(Repeated(**TINY | {"init": "normal", "keep_rate": 0.25, "steps": 1}), model, None).run()
    assert found.data == {"memory": 12} and slots_of(load(found)) == 9
    assert found.fingerprint == fingerprint(model) and found.settings["chunk"] == 8
    assert all(x.dtype == torch.bfloat16 for x in found.tensors.values())


def test_other_layers_are_refused():
    from helpers.zoo import MIXED, Tiny

    model = Tiny("Gemma2", {"layer_types": MIXED, "sliding_window": 16, "query_pre_attn_scalar": 16}).build()
    with pytest.raises(UnsupportedModelError, match="not full attention"):
        built(model)


# line 8 of the card
@pytest.mark.slow
def test_after_a_short_training_on_repeats_it_beats_heavy_hitters():
    """The settings for small models on segments that come again and again; both losses on sequences never trained on."""
    model, tokenizer = laconic.load("testbed/lm")
    model.set_attn_implementation("eager")
    mixture = TestbedSource(tokenizer).mixture

    class Segments:
        def examples(self, name, size, tokens):
            rng = random.Random(name)
            return [mixture.induction(rng, tokens, 4000) for _ in range(size)]

        def batch(self, seed, step, size, tokens):
            return labelled(self.examples(f"{seed}-{step}", size, tokens), tokens)

    @dataclass(kw_only=True)
    class Segmented(LoCoCoFit):
        def source_of(self, tokenizer):
            return Segments()

    given = {"memory": 32, "kernel": 7, "chunk": 32, "slack": 4, "tokens": 256, "batch_size": 4, "lr": 1e-2, "lr_nu": 1e-2}
    fit = Segmented(steps=200, **given)
    Trainer(fit, model, tokenizer).run()
    unseen = Segments().examples("unseen", 16, 256)
    full, hh, conv = (
        mean_loss(model, unseen, 256, 32, 36, way) for way in (None, heavy_hitters(32), mixing(fit.layers, 16))
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
        LoCoCoFit(**TINY | given)
