"""LLaVolta's schedule: a model is tuned with visual tokens averaged heavily at first and not at all in the end (2406.20092).

In a loop of one's own:

    for step in range(steps):
        with schedule.compressed(model, step, steps) as session:
            loss = answer_loss(session, model(**batch).logits, labels)
            loss.backward()

With transformers' Trainer: ``staged = StagedCompression(schedule)`` and
``Trainer(..., callbacks=[staged], compute_loss_func=staged.loss)``. The stage follows from the number of optimiser steps
alone, so it goes on where it was after a checkpoint, all micro-batches of a step share it, and evaluation, which happens
between steps, is never compressed. Prompts must be padded on the left.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from laconic.fit.losses import answer_loss
from laconic.methods.tokens.llavolta.method import LLaVolta
from laconic.session import Session, compress
from laconic.stream.blocks import at_depth


@dataclass(frozen=True)
class Stage:
    """Groups of `stride` visual tokens are averaged before `layer` of 32 (scaled to the model's depth); 1: none are."""

    layer: int = 0
    stride: int = 1

    def method(self, depth: int) -> LLaVolta | None:
        """The compressor of this stage for a model of `depth` layers; None when it is off."""
        return None if self.stride == 1 else LLaVolta(layer=at_depth(self.layer, depth), stride=self.stride)


FOUR_STAGES = (Stage(2, 8), Stage(2, 2), Stage(16, 2), Stage())
"""Heavy and shallow, then wider, then deeper, then off; a quarter of the steps each."""
HEAVY = (Stage(2, 8),)
LIGHT = (Stage(16, 8),)
"""The published schemes of one stage."""


@dataclass(frozen=True)
class Schedule:
    """Stages of equal length."""

    stages: tuple[Stage, ...] = FOUR_STAGES

    def __post_init__(self) -> None:
        if not self.stages:
            raise ValueError("stages=(): give one stage or more, such as FOUR_STAGES.")

    def at(self, step: int, steps: int) -> Stage:
        """The stage of optimiser step `step`, from 0, of `steps`."""
        return self.stages[min(step * len(self.stages) // steps, len(self.stages) - 1)]

    @contextmanager
    def compressed(self, model: PreTrainedModel, step: int, steps: int) -> Iterator[Session | None]:
        """`model` as it is trained in this step; gives the session for `answer_loss`, or None when nothing is averaged."""
        session = _session(self.at(step, steps), model)
        if session is None:
            yield None
        else:
            with session:
                yield session


def _session(stage: Stage, model: PreTrainedModel) -> Session | None:
    """A session, not yet open, that averages as the stage says."""
    method = stage.method(int(model.config.get_text_config().num_hidden_layers))
    return None if method is None else compress(model, method)


class StagedCompression(TrainerCallback):
    """Opens the stage's session around every optimiser step of a Trainer. If training fails, call `close`."""

    def __init__(self, schedule: Schedule | None = None):
        self.schedule = schedule or Schedule()
        self.session: Session | None = None

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.close()
        session = _session(self.schedule.at(state.global_step, state.max_steps), kwargs["model"])
        self.session = None if session is None else session.__enter__()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.close()

    def loss(self, outputs: Any, labels: Tensor, num_items_in_batch: int | Tensor | None = None) -> Tensor:
        """The Trainer's ``compute_loss_func``."""
        return answer_loss(self.session, outputs.logits, labels, num_items_in_batch)

    def close(self) -> None:
        """Leave the model as it was."""
        if self.session is not None:
            self.session.__exit__(None, None, None)
            self.session = None
