"""The fit of EAS: the search finds idle attentions, resuming changes nothing, the method loads what it writes."""

from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from helpers.eas_tools import generated
from helpers.session_tools import assert_same_state, state

import laconic
from laconic import EAS
from laconic.fit import Trainer
from laconic.fit.text import IGNORED
from laconic.methods.weights.eas.applied import applied
from laconic.methods.weights.eas.fit import Batch, EASFit, prompts
from laconic.methods.weights.eas.network import Adapters
from laconic.methods.weights.eas.search import Search

TINY = {
    "steps": 9,
    "search": 6,
    "warmup": 2,
    "turn": 1,
    "width": 4,
    "skip_width": 6,
    "k": 2,
    "log_every": 3,
    "save_every": 4,
}


class Repeats:
    """One of few segments again and again, in one of four batches."""

    def batch(self, seed, step, size, tokens):
        generator = torch.Generator().manual_seed(1000 * seed + step % 4)
        pool = torch.randint(1, 97, (3, 5), generator=generator)
        picks = torch.randint(0, 3, (size, tokens // 5), generator=generator)
        ids = pool[picks].flatten(1)
        return ids, ids.clone()


@dataclass(kw_only=True)
class Repeated(EASFit):
    """Trains on `Repeats`."""

    tokens: int = 40
    batch_size: int = 2

    @property
    def source(self):
        return Repeats()


@dataclass(kw_only=True)
class Distilled(EASFit):
    """Towards what the model says without adapters."""

    def batch(self, step):
        if self.chooser is not None and step == self.search:
            self.adapters.reset()
        ids, said = self.material
        at = slice(8 * (step % 6), 8 * (step % 6) + 8)
        return Batch(step, {"input_ids": ids[at]}, said[at], torch.ones_like(ids[at]))

    def cost(self, batch, skip):
        with applied(self.model, self.adapters, skip) as placed:
            placed.begin(batch.over)
            new = self.model(**batch.given).logits.log_softmax(-1)
        return F.kl_div(new, batch.labels, reduction="none", log_target=True).sum(-1).mean()


@pytest.fixture(scope="module")
def half(make_llama):
    """Seven layers, three of whose attentions contribute next to nothing; inputs, and the model's own output for them."""
    model = make_llama(layers=7, seed=3)
    for i in (2, 4, 5):
        model.model.layers[i].self_attn.o_proj.weight.mul_(1e-4)
    ids = torch.randint(1, 97, (64, 16), generator=torch.Generator().manual_seed(0))
    return model, ids, model(ids).logits.log_softmax(-1)


@pytest.mark.slow
def test_6_idle_attentions_are_found(half):
    model, ids, said = half
    fit = Distilled(steps=151, search=150, turn=1, subsets=6, warmup=5, k=3, width=4, skip_width=4)
    fit.material = (ids, said)
    before = state(model)
    found = tuple(Trainer(fit, model, None).run().data["skip"])
    assert found == (2, 4, 5)
    assert_same_state(model, before)
    fit.adapters = Adapters.of(model, width=4, skip_width=4, both=True).eval()
    held_out = Batch(0, {"input_ids": ids[48:]}, said[48:], torch.ones_like(ids[48:]))

    def lost(skip):
        with torch.no_grad():
            return float(fit.cost(held_out, skip))

    drawn = Search(range(1, 7), 3, seed=4)
    others = [subset for subset in drawn.draw_distinct(6) if subset != found]
    assert all(lost(subset) > 10 * lost(found) for subset in others)


def test_what_is_fitted_runs_as_it_was_trained(make_llama, prompt, tmp_path):
    model, ids = make_llama(), prompt(1, 20)
    before, lines = state(model), []
    fit = Repeated(**TINY)
    artifact = Trainer(fit, model, None, None, lines.append).run()
    assert_same_state(model, before)
    assert artifact.kind == "trained" and len(artifact.data["skip"]) == 2 and len(artifact.data["scores"]) == 3
    assert not any("scores" in name for name in artifact.tensors)
    assert any("skipped" in line for line in lines)
    artifact.save(tmp_path / "a.safetensors")
    method = EAS(artifact=str(tmp_path / "a.safetensors"))
    with laconic.compress(model, method):
        got, _ = generated(model, ids, 3)
    rounded = {name: x.float() for name, x in artifact.tensors.items()}
    fit.adapters.load_state_dict(rounded)
    with torch.no_grad(), applied(model, fit.adapters):
        want, _ = generated(model, ids, 3)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)


def test_training_lowers_the_loss_of_the_skipped_model(make_llama):
    model = make_llama()
    fit = Repeated(**TINY | {"skip": (2, 3), "k": None, "steps": 40, "lr": 3e-2})
    Trainer(fit, model, None).run()
    fresh = Adapters.of(model, (2, 3), width=4, skip_width=6).eval()
    trained, losses = fit.adapters, []
    batch = fit.batch(0)
    for adapters in (fresh, trained):
        fit.adapters = adapters
        with torch.no_grad():
            losses.append(float(fit.cost(batch, (2, 3))))
    assert losses[1] < 0.97 * losses[0]


def test_the_search_ends_with_fresh_adapters(make_llama):
    fit, model = Repeated(**TINY), make_llama()
    torch.manual_seed(0)
    module = fit.build(model, None)
    fit.optimizer(module).state["something"] = 1
    up = module.kept["0"].up0.weight
    torch.nn.init.ones_(up)
    fit.batch(fit.search - 1)
    assert bool(up.all()) and fit._optimizer.state
    fit.batch(fit.search)
    assert not bool(up.any()) and not fit._optimizer.state


@pytest.mark.parametrize("cut", [4, 6, 8])
def test_a_resumed_fit_is_the_unbroken_one(make_llama, tmp_path, cut):
    """Cut in the search, right after it, and in what follows."""
    model = make_llama()
    whole = Trainer(Repeated(**TINY), model, None).run()

    class Stop(Repeated):
        def batch(self, step):
            if step == cut:
                raise KeyboardInterrupt
            return super().batch(step)

    with pytest.raises(KeyboardInterrupt):
        Trainer(Stop(**TINY | {"save_every": 2}), model, None, tmp_path / "run").run()
    again = Trainer(Repeated(**TINY | {"save_every": 2}), model, None, tmp_path / "run").run(resume=True)
    assert again.data == whole.data
    assert all(torch.equal(x, whole.tensors[name]) for name, x in again.tensors.items())


def test_prompts_are_what_comes_before_the_first_label():
    labels = torch.full((3, 8), IGNORED)
    labels[0, 5:7] = 3
    labels[1] = 4  # text without a prompt
    labels[2, 6:] = 5
    real = torch.ones(3, 8, dtype=torch.long)
    real[2, :2] = 0
    kept, over = prompts(labels, real)
    assert over.int().tolist() == [[1] * 5 + [0] * 3, [1] * 4 + [0] * 4, [0, 0] + [1] * 4 + [0, 0]]
    assert kept.tolist() == [labels[0].tolist(), [IGNORED] * 4 + [4] * 4, labels[2].tolist()]


def test_rates_fall_in_both_parts():
    fit = EASFit(steps=30, search=10, warmup=2)
    rates = [fit.rate(step) for step in range(30)]
    assert rates[0] == 1 and rates[9] == pytest.approx(0.1)
    assert rates[10] == pytest.approx(0.5) and rates[12] == pytest.approx(1.0) and rates[29] < 0.02
    assert EASFit(steps=30, skip=(1,)).rate(3) == pytest.approx(1.0)


def test_fitted_on_the_testbeds_chats():
    model, tokenizer = laconic.load("testbed/lm")
    fit = EASFit(steps=3, search=2, warmup=1, turn=1, tokens=128, batch_size=2)
    artifact = Trainer(fit, model, tokenizer).run()
    assert len(artifact.data["skip"]) == 1  # 12 of 32, of four layers
    batch = fit.batch(5)
    assert batch.given["input_ids"].shape == batch.labels.shape == (2, 128)
    assert bool((batch.labels[batch.over] == IGNORED).all()) and bool((batch.labels != IGNORED).any(1).all())
    assert torch.equal(batch.given["input_ids"], fit.batch(5).given["input_ids"])


@pytest.mark.slow
def test_fitted_on_images():
    model, processor = laconic.load("testbed/vlm")
    fit = EASFit(steps=2, skip=(3,), batch_size=2)
    artifact = Trainer(fit, model, processor).run()
    assert artifact.data["skip"] == [3]
    batch = fit.batch(1)
    assert "pixel_values" in batch.given and not bool((batch.over & (batch.given["attention_mask"] == 0)).any())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"rule": "greedy"}, "choose 'softmax' or 'sigmoid'"),
        ({"search": 2000}, "search=2000 must be more than warmup=500 and less than steps=2000"),
        ({"search": 500}, "search=500 must be more than warmup=500"),
        ({"skip": (1, 2), "k": 1}, "names 2 layers, but k=1"),
    ],
)
def test_settings_that_make_no_sense(given, message):
    with pytest.raises(ValueError, match=message):
        EASFit(**given)
