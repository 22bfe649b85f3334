"""The trainer: what it leaves, what it restores, and that an interrupted training ends where an unbroken one does."""

import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from helpers import fit_toy
from helpers.fit_toy import ToyFit, toy_model

from laconic.artifact import fingerprint
from laconic.errors import ArtifactError
from laconic.fit import Fit, Trainer
from laconic.fit.checkpoint import CHECKPOINT


def run(folder=None, resume=False, log=lambda line: None, kind=ToyFit, **given):
    return Trainer(kind(**given), toy_model(), None, folder, log).run(resume)


def same(one, two):
    return one.tensors.keys() == two.tensors.keys() and all(torch.equal(x, two.tensors[n]) for n, x in one.tensors.items())


def test_an_artifact_of_a_training(tmp_path):
    lines = []
    found = run(tmp_path / "new" / "folder", log=lines.append, width=3)
    assert (found.method, found.kind, found.fingerprint) == ("knorm", "trained", fingerprint(toy_model()))
    assert found.data == {"training": False}  # facts are asked for in eval mode
    assert found.settings == {**ToyFit(width=3).settings(), "sizes": [1, 2]}
    assert found.tensors["0.weight"].shape == (1, 3) and found.tensors["0.weight"].dtype == torch.bfloat16
    assert [line.split(" loss ")[0] for line in lines] == ["step 2", "step 4", "step 6"]
    folder = tmp_path / "new" / "folder"
    assert (folder / "train.log").read_text().splitlines() == lines
    assert {path.name for path in folder.iterdir()} == {CHECKPOINT, "train.log"}


def test_what_the_log_says_is_the_mean_since_its_last_line(monkeypatch):
    losses, lines = [], []
    original = ToyFit.loss
    monkeypatch.setattr(ToyFit, "loss", lambda self, x: losses.append(original(self, x)) or losses[-1])
    monkeypatch.setattr(ToyFit, "progress", lambda self: "and more")
    run(log=lines.append, steps=5)
    means = [sum(float(x.detach()) for x in losses[a:b]) / (b - a) for a, b in ((0, 2), (2, 4), (4, 5))]
    assert [line.split(" 0 s")[0] for line in lines] == [
        f"step {n} loss {mean:.4f} and more" for n, mean in zip((2, 4, 5), means, strict=True)
    ]


def test_rates_start_at_the_peak_and_are_scaled_also_after_resuming(tmp_path, monkeypatch):
    rates = []
    original = torch.optim.AdamW.step
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda self: rates.append(self.param_groups[0]["lr"]) or original(self))
    run(tmp_path, steps=4)
    assert rates == pytest.approx([0.1, 0.075, 0.05, 0.025])
    run(tmp_path, True, steps=8)
    assert rates[4:] == pytest.approx([0.05, 0.0375, 0.025, 0.0125])


def test_terms_are_backpropagated_one_by_one(monkeypatch):
    monkeypatch.setattr("torch.nn.Dropout.forward", lambda self, x: x)
    whole, lines = run(), []
    original, untouched = ToyFit.loss, []

    def terms(self, batch):
        yield torch.tensor(0.25)  # has no part in what is trained
        untouched.append(self.net[0].weight.grad is None)
        yield original(self, batch) / 2
        untouched.append(self.net[0].weight.grad is None)
        yield original(self, batch) / 2

    monkeypatch.setattr(ToyFit, "loss", terms)
    assert same(run(log=lines.append), whole) and untouched == [True, False] * 6
    monkeypatch.setattr(ToyFit, "loss", original)
    plain = []
    run(log=plain.append)
    more = [float(a.split()[3]) - float(b.split()[3]) for a, b in zip(lines, plain, strict=True)]
    assert more == pytest.approx([0.25] * 3, abs=1e-3)  # but it counts


def test_gradients_are_clipped_only_when_asked(monkeypatch):
    norms = []
    original = torch.nn.utils.clip_grad_norm_
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda p, most: norms.append(most) or original(p, most))
    loose, tight = run(), run(clip=0.01)
    assert norms == [0.01] * 6 and not same(loose, tight)


def test_a_training_that_was_interrupted_ends_where_an_unbroken_one_does(tmp_path, monkeypatch):
    whole = run(tmp_path / "whole")
    original = ToyFit.batch

    def interrupted(self, step):
        if step == 3:
            raise KeyboardInterrupt
        return original(self, step)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(ToyFit, "batch", interrupted)
        run(tmp_path / "broken")
    lines = []
    again = run(tmp_path / "broken", True, lines.append)
    assert same(again, whole) and again == whole
    assert [line.split(" loss")[0] for line in lines] == ["step 4", "step 6"]
    assert same(run(tmp_path / "broken", True), whole)  # nothing is left to do


def test_a_training_that_breaks_off_in_its_first_step_can_be_resumed(tmp_path, monkeypatch):
    """A checkpoint is written before the first step: what `prepare` makes is resumed, and only with the same settings."""
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(ToyFit, "batch", lambda self, step: (_ for _ in ()).throw(KeyboardInterrupt))
        run(tmp_path)
    with pytest.raises(ArtifactError, match="holds a training already"):
        run(tmp_path)
    with pytest.raises(ArtifactError, match=r"other settings \(width\)"):
        run(tmp_path, True, width=5)
    assert same(run(tmp_path, True), run())


@pytest.mark.slow
def test_a_killed_training_goes_on(tmp_path):
    """kill -9 in the middle of a training that saves after every step: what is on the disk is whole."""
    arguments = [sys.executable, fit_toy.__file__, str(tmp_path), "0.003"]
    process = subprocess.Popen(arguments, stderr=subprocess.PIPE)
    try:
        log, most = tmp_path / "train.log", time.monotonic() + 120
        while not (log.exists() and "step 10" in log.read_text()):
            assert process.poll() is None and time.monotonic() < most, process.stderr.read().decode()
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    given = {"steps": 200, "save_every": 1}
    assert same(run(tmp_path, True, **given), run(**given))


def test_what_cannot_be_resumed_says_so(tmp_path):
    with pytest.raises(ArtifactError, match="holds no checkpoint to resume from"):
        run(tmp_path, True)
    with pytest.raises(ArtifactError, match="without a folder"):
        run(None, True)
    run(tmp_path)
    with pytest.raises(ArtifactError, match=r"holds a training already: continue it with --resume, or choose"):
        run(tmp_path)
    with pytest.raises(ArtifactError, match=r"other settings \(width\)"):
        run(tmp_path, True, width=5)
    run(tmp_path, True, steps=7, log_every=1, pause=1e-6)  # these may change


def test_the_model_and_the_random_state_are_left_as_they_were():
    model = toy_model().requires_grad_(True)
    before, attention = {n: x.clone() for n, x in model.state_dict().items()}, model.config._attn_implementation
    state, held = torch.get_rng_state(), []

    class Looks(ToyFit):
        def prepare(self, folder, resume):
            held.append((self.model.config._attn_implementation, any(p.requires_grad for p in self.model.parameters())))

    Trainer(Looks(), model, None).run()
    assert held == [("eager", False)] and attention != "eager" and model.config._attn_implementation == attention
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert all(torch.equal(x, before[n]) for n, x in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


@dataclass(kw_only=True)
class Measured(Fit):
    """Nothing is trained."""

    extra: int = 2

    method = "snapkv"

    def facts(self):
        self.note("measured")
        return (
            {"value": self.extra * 2, "grad": all(p.requires_grad for p in self.model.parameters())}
            if self.extra > 1
            else {}
        )


def test_a_measurement_leaves_no_folder_and_runs_the_model_as_it_is(tmp_path):
    lines = []
    found = run(tmp_path / "none", log=lines.append, kind=Measured, extra=4)
    assert found.data == {"value": 8, "grad": True} and found.settings == {"seed": 0, "extra": 4} and found.tensors == {}
    assert (found.kind, lines) == ("measured", ["measured"]) and not Path(tmp_path / "none").exists()
    with pytest.raises(ArtifactError, match="fitting snapkv gave nothing"):
        run(kind=Measured, extra=1)
    with pytest.raises(ArtifactError, match="nothing to resume"):
        run(tmp_path, True, kind=Measured)
