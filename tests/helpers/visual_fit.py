"""Trained visual compressors: a fresh network as an artifact, and whether training reads what a session reads."""

import random

import pytest
import torch

from laconic import ArtifactError, compress
from laconic.artifact import Artifact, numbers
from laconic.fit import Trainer
from laconic.fit.images import inputs
from laconic.testbed.vlm_model import build_processor, build_tokenizer


def processor():
    """The testbed's processor, made anew: equal to the shipped one in all that these tests see."""
    return build_processor(build_tokenizer())


def network_of(fit, model, processor):
    """The fresh network of `fit`, in eval mode, all of whose weights matter."""
    torch.manual_seed(fit.seed)
    net = fit.build(model, processor).eval()
    with torch.no_grad():
        for weight in net.parameters():
            weight.add_(torch.randn_like(weight) * 0.02)
    return net


def made(fit, model, path, net=None):
    """The artifact of `fit`, with its network as it is."""
    Artifact.of(fit.method, "trained", model, fit.facts(), numbers(fit.net if net is None else net)).save(path)
    return str(path)


def check_same_as_session(fit, model, processor, method, rng=None):
    """Logits after the prompt, from the layout of training and from a session with `method`."""
    asked = fit.asked(3)
    with torch.no_grad():
        trained = fit.logits(asked, rng or random.Random(0))
    about = [fit.shown(3 * fit.images + i) for i in range(fit.images)]
    each = min(map(len, about))
    with compress(model, method):
        for b, sample in enumerate(one for some in about for one in some[:each]):
            said = model(**inputs(processor, [sample])).logits[0, -1]
            answer = int((asked.labels[b] != -100).sum())
            torch.testing.assert_close(trained[b, -answer - 1], said, rtol=1e-3, atol=1e-3)


def state(module):
    return [x.clone() for x in module.state_dict().values()]


def check_only_the_network_learns(cls, settings, model, processor, folder, monkeypatch):
    """The host stays as it is, and a training that was stopped ends where an unbroken one does."""
    before = state(model)
    one = cls(**settings, steps=3, log_every=1, save_every=1)
    straight = Trainer(one, model, processor, folder / "a").run()
    assert all(torch.equal(x, y) for x, y in zip(before, state(model), strict=True))
    torch.manual_seed(one.seed)
    fresh = state(cls(**settings).build(model, processor))
    assert any(not torch.equal(x, y) for x, y in zip(fresh, state(one.net), strict=True))
    original = cls.batch

    def stops(self, step):
        if step == 2:
            raise KeyboardInterrupt
        return original(self, step)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(cls, "batch", stops)
        Trainer(cls(**settings, steps=3, save_every=1), model, processor, folder / "b").run()
    lines = []
    two = cls(**settings, steps=3, log_every=1, save_every=1)
    resumed = Trainer(two, model, processor, folder / "b", lines.append).run(resume=True)
    assert all(torch.equal(x, y) for x, y in zip(state(one.net), state(two.net), strict=True))
    assert resumed.data == straight.data and lines[0].startswith("step 3") and " right " in lines[0]


def check_artifacts(method, path, model, llama):
    """Weights of none, of another model or of another method are refused; `method` makes one from artifact=."""
    with pytest.raises(ArtifactError, match="none is shipped for its weights"):
        compress(model, method(None))
    found = Artifact.load(path)
    Artifact.of(found.method, "trained", llama, found.data, found.tensors).save(path.with_name("other.safetensors"))
    with pytest.raises(ArtifactError, match="made for other weights"):
        compress(model, method(str(path.with_name("other.safetensors"))))
    Artifact.of("dyvte", "trained", model, {}, found.tensors).save(path.with_name("wrong.safetensors"))
    with pytest.raises(ArtifactError, match="is for dyvte, not for"):
        compress(model, method(str(path.with_name("wrong.safetensors"))))
    short = dict(list(found.tensors.items())[1:])
    Artifact.of(found.method, "trained", model, found.data, short).save(path.with_name("short.safetensors"))
    with pytest.raises(ArtifactError, match="do not fit"):
        compress(model, method(str(path.with_name("short.safetensors"))))
