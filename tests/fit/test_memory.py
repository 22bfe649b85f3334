"""Trainings of learned memories: the loss beside a plain call, what is drawn, and that each of them learns something."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

import laconic
from laconic.fit import Trainer
from laconic.fit.find import find_fit, fits
from laconic.fit.image_memory import ImageMemoryFit
from laconic.fit.memory import ContextFit, MemoryFit, predicted, predicted_after
from laconic.fit.settings import parse
from laconic.memory.compressor import embedded
from laconic.memory.prefix import read

FITS = {name: cls for name, cls in fits().items() if issubclass(cls, ContextFit) and not issubclass(cls, ImageMemoryFit)}
NAMES = sorted(FITS)
SOFT = sorted(name for name, cls in FITS.items() if issubclass(cls, MemoryFit))


@pytest.fixture(scope="module")
def loaded():
    return laconic.load("testbed/facts")


def fit_of(name, **settings):
    return parse(find_fit(name), {key: str(value) for key, value in settings.items()})


@torch.no_grad()
def test_predictions_after_the_contexts_own_embeddings_are_the_models(loaded):
    model, tokenizer = loaded
    fit = fit_of("mean_pool", batch_size=3)
    fit.build(model, tokenizer)
    reading, _ = fit.batch(0)
    logits, wanted = predicted(model, reading, embedded(model, reading.context))
    ids = torch.cat([reading.opening.expand(3, -1), reading.context, reading.rest], 1)
    whole = model(ids).logits.float()
    at = [(b, ids.shape[1] - reading.rest.shape[1] + t) for b, t in reading.learned.nonzero().tolist()]
    torch.testing.assert_close(logits, torch.stack([whole[b, t - 1] for b, t in at]), atol=2e-2, rtol=2e-2)
    assert wanted.tolist() == [int(ids[b, t]) for b, t in at]
    assert float((logits.argmax(-1) == wanted).float().mean()) > 0.99  # the model answers these questions


def test_steps_draw_all_shares_and_only_answers_are_learned(loaded):
    fit = fit_of("mean_pool", batch_size=2)
    fit.build(*loaded)
    drawn = [fit.batch(step) for step in range(12)]
    assert {keep for _, keep in drawn} == {0.5, 0.25}
    assert all(int(reading.learned.sum()) == 2 * 8 for reading, _ in drawn)
    assert torch.equal(fit.batch(3)[0].context, drawn[3][0].context)
    assert not torch.equal(drawn[3][0].context, drawn[4][0].context)


@pytest.mark.parametrize("name", NAMES)
def test_a_training_leaves_an_artifact_that_its_method_uses(loaded, name, tmp_path):
    model, tokenizer = loaded
    before = {key: x.clone() for key, x in model.state_dict().items()}
    fit = fit_of(name, steps=2, batch_size=2, log_every=1)
    lines: list[str] = []
    artifact = Trainer(fit, model, tokenizer, None, lines.append).run()
    assert all("right" in line for line in lines) and artifact.data["keeps"] == list(fit.keeps)
    assert all(x.dtype == torch.float16 for x in artifact.tensors.values())
    assert all(torch.equal(x, before[key]) for key, x in model.state_dict().items())
    artifact.save(tmp_path / "a.safetensors")
    memory = laconic.Memory.of(
        model, tokenizer, "c5 a3 f0 b1", f"{name}:keep={fit.keeps[0]},artifact={tmp_path / 'a.safetensors'}"
    )
    assert len(memory.ids) == 4 and memory.entries >= 1
    if name in SOFT:
        network = memory.method.network
        assert memory.entries == network.count(4, fit.keeps[0]) + (network.closing() is not None)


@pytest.mark.parametrize("name", SOFT)
def test_a_few_steps_on_one_batch_lower_its_loss(loaded, name):
    model, tokenizer = loaded
    fit = fit_of(name, batch_size=4)
    torch.manual_seed(0)
    module = fit.build(model.requires_grad_(False), tokenizer)
    reading, optimizer, losses = fit.batch(0)[0], torch.optim.AdamW(module.parameters(), lr=2e-3), []
    reading = replace(reading, context=reading.context[:, :16])
    for _ in range(8):
        loss = F.cross_entropy(*predicted(model, reading, module.contexts(model, reading.context, 0.5)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.95 * losses[0]


@pytest.mark.parametrize("name", sorted(set(NAMES) - set(SOFT)))
def test_a_few_steps_of_a_prefix_on_one_batch_lower_its_loss(loaded, name):
    model, tokenizer = loaded
    fit = fit_of(name, batch_size=4, segment=8)
    torch.manual_seed(0)
    module = fit.build(model.requires_grad_(False), tokenizer)
    reading, optimizer, losses = fit.batch(0)[0], torch.optim.AdamW(module.parameters(), lr=2e-3), []
    for _ in range(8):
        optimizer.zero_grad()
        terms, total = fit.loss((reading, 0.5)), 0.0
        for term in [terms] if isinstance(terms, torch.Tensor) else terms:
            term.backward()
            total += float(term.detach())
        optimizer.step()
        losses.append(total)
    assert losses[-1] < 0.95 * losses[0]
    assert all(p.grad is None for p in model.parameters())


@torch.no_grad()
def test_predictions_after_the_contexts_own_entries_are_the_models(loaded):
    model, tokenizer = loaded
    fit = fit_of("gist", batch_size=3)
    fit.build(model, tokenizer)
    reading, _ = fit.batch(0)
    whole = read(model, torch.cat([reading.opening.expand(3, -1), reading.context], 1))
    logits, wanted = predicted_after(model, reading, whole)
    other, same = predicted(model, reading, embedded(model, reading.context))
    assert wanted.tolist() == same.tolist()
    torch.testing.assert_close(logits, other, atol=0.1, rtol=0.05)
    assert float((logits.argmax(-1) == wanted).float().mean()) > 0.99
