"""The trainer: runs any fit to its artifact; owns optimiser steps, schedule, log, checkpoints and resuming."""

from __future__ import annotations

import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from laconic.artifact import Artifact, numbers
from laconic.errors import ArtifactError
from laconic.fit.checkpoint import CHECKPOINT, load_state, noting, resumable, save_state
from laconic.fit.contract import Fit, Note, TrainingFit
from laconic.fit.frozen import frozen


def silent(line: str) -> None:
    """Discard a line of progress."""


class Trainer:
    """Runs `fit` on `model`, which is left unchanged; while something is trained beside it, the model is frozen.

    Args:
        model: None for a fit that stands alone.
        tokenizer: of the model, or its processor if it sees images.
        folder: for checkpoints and the log of a training; made if missing. None: it cannot be resumed.
        log: receives the lines of progress.
    """

    def __init__(
        self, fit: Fit, model: PreTrainedModel | None, tokenizer: Any, folder: Path | None = None, log: Note = silent
    ) -> None:
        self.fit, self.model, self.tokenizer = fit, model, tokenizer
        self.folder = folder if isinstance(fit, TrainingFit) else None  # a measurement leaves nothing to resume from
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
        fit.note = noting(self.folder, log)

    def run(self, resume: bool = False) -> Artifact:
        """Measure, or train to the last step.

        Args:
            resume: continue from the checkpoint in the folder. More `steps` than before lengthen a training; the schedule is
                then computed from the new number.

        Raises:
            ArtifactError: nothing to resume, a folder that holds another training, or a measurement that found nothing.
        """
        # A measurement runs the model just as it is: even without gradients, kernels differ in the last bit when its
        # parameters do not ask for any.
        training = isinstance(self.fit, TrainingFit) and self.model is not None
        kept = frozen(self.model, self.fit.attention) if training else nullcontext()  # type: ignore[arg-type,attr-defined]
        with kept, torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.fit.seed)
            module = self.fit.build(self.model, self.tokenizer)  # type: ignore[arg-type]
            if isinstance(self.fit, TrainingFit):
                assert module is not None
                self.train(self.fit, module.to("cpu" if self.model is None else self.model.device), resume)
            elif resume:
                raise ArtifactError(f"{self.fit.method} is measured in one go: there is nothing to resume.")
            data = self.fit.facts()
        return self.artifact(module, data)

    def artifact(self, module: nn.Module | None, data: dict[str, Any]) -> Artifact:
        """The artifact of what was measured or trained."""
        method, settings = self.fit.method, self.fit.settings()
        if isinstance(self.fit, TrainingFit) and module is not None:
            tensors = numbers(module, self.fit.stored)
            return Artifact.of(method, "trained", self.model, data, tensors, settings)
        if not data:
            raise ArtifactError(f"fitting {method} gave nothing; see its notes, and try other settings.")
        return Artifact.of(method, "measured", self.model, data, self.fit.tensors(), settings)

    def train(self, fit: TrainingFit, module: nn.Module, resume: bool) -> None:
        """Run the remaining steps. Afterwards `module` is in eval mode."""
        optimizer = fit.optimizer(module.train())
        peaks = [group["lr"] for group in optimizer.param_groups]  # before a checkpoint brings its own rates
        done, before = self._start(module, optimizer, resume)
        fit.prepare(self.folder, resume)
        began, losses, fit.seconds = time.monotonic(), [], before
        while done < fit.steps:
            for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                group["lr"] = peak * fit.rate(done)
            losses.append(step(fit, module, optimizer, done))
            done += 1
            fit.seconds = before + time.monotonic() - began
            if done % fit.log_every == 0 or done == fit.steps:
                told = [f"step {done} loss {sum(losses) / len(losses):.4f}", fit.progress(), f"{fit.seconds:.0f} s"]
                fit.note(" ".join(filter(None, told)))
                losses = []
            if done % fit.save_every == 0 or done == fit.steps:
                self._save(module, optimizer, done, fit.seconds)
        module.eval()

    def _start(self, module: nn.Module, optimizer: torch.optim.Optimizer, resume: bool) -> tuple[int, float]:
        """Steps done and seconds spent so far."""
        fit, folder = self.fit, self.folder
        assert isinstance(fit, TrainingFit)
        if resume:
            if folder is None:
                raise ArtifactError(f"{fit.method}: there is nothing to resume without a folder; give one.")
            state = resumable(folder, fit.settings(), fit.free)
            load_state(folder, [optimizer], module)
            return int(state["done"]), float(state["seconds"])
        if folder is not None and (folder / CHECKPOINT).exists():
            raise ArtifactError(
                f"{str(folder)!r} holds a training already: continue it with --resume, or choose another folder (--out)."
            )
        # A checkpoint at step 0, so that what `prepare` makes can be resumed, too, and only with the same settings.
        self._save(module, optimizer, 0, 0.0)
        return 0, 0.0

    def _save(self, module: nn.Module, optimizer: torch.optim.Optimizer, done: int, seconds: float) -> None:
        if self.folder is not None:
            state = {"done": done, "seconds": seconds, "settings": self.fit.settings()}
            save_state(self.folder, [optimizer], state, module)


def step(fit: TrainingFit, module: nn.Module, optimizer: torch.optim.Optimizer, number: int) -> float:
    """One optimiser step at the current learning rates; returns the loss before it."""
    torch.manual_seed(fit.seed * 1_000_000 + number)  # so that dropout and the like draw the same after resuming
    optimizer.zero_grad(set_to_none=True)
    total, terms = 0.0, fit.loss(fit.batch(number))
    for term in [terms] if isinstance(terms, Tensor) else terms:
        if term.requires_grad:  # a term without trained parameters has no gradient; it only adds to the loss
            term.backward()  # type: ignore[no-untyped-call]
        total += float(term.detach())
    if fit.clip is not None:
        nn.utils.clip_grad_norm_(module.parameters(), fit.clip)
    optimizer.step()
    return total
