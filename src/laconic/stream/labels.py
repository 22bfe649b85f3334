"""`labels=` in a session that shortens the stream: the model's own loss, over the tokens that are left."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from laconic.errors import SessionError
from laconic.step import Step

IGNORED = -100
"""The label of tokens without a target, as in transformers."""


class Labels(threading.local):
    """Hooks that take the labels from a call of the model, whose logits will have fewer rows, and add the loss afterwards.

    Every token that is left is to predict the next one that is left. Methods for visual tokens drop no text, so all text
    targets remain; the first one after an image is predicted by the last token before it. Every thread has its own labels.

    Args:
        step: the running pass; asked when the model returns.
        drops_text: name of a method that drops text, too: then the loss would be over other pairs of words than those of the
            labels, and labels are refused. None: there is no such method.
    """

    def __init__(self, model: PreTrainedModel, step: Callable[[], Step | None], drops_text: str | None = None):
        self.model, self.step, self.drops_text = model, step, drops_text
        self._arguments = list(inspect.signature(model.forward).parameters)
        self._labels: Tensor | None = None
        self._count: Any = None

    def install(self) -> list[RemovableHandle]:
        """Hook the model. The session drops the step in its own hook after the model, so these come before it."""
        return [
            self.model.register_forward_pre_hook(self._before, with_kwargs=True),
            self.model.register_forward_hook(self._after),
        ]

    def _before(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        kwargs = dict(zip(self._arguments, args, strict=False)) | kwargs
        self._labels, self._count = kwargs.pop("labels", None), kwargs.get("num_items_in_batch")
        if self._labels is not None and self.drops_text is not None:
            raise SessionError(
                f"labels=: {self.drops_text} drops text between the layers, so the logits belong to other tokens than the "
                "labels. Call the model without labels, or outside of the session."
            )
        return None if self._labels is None else ((), kwargs)

    def _after(self, module: nn.Module, args: Any, output: Any) -> Any:
        labels, self._labels = self._labels, None
        if labels is None:
            return None
        if getattr(output, "aux_loss", None) is not None:
            raise SessionError(
                "labels=: this model adds a loss of its router to that of its tokens, which a session that shortens the "
                "stream cannot; call it with output_router_logits=False, or outside of the session."
            )
        logits = output["logits"] if isinstance(output, dict) else output[0]
        counted = {} if self._count is None else {"num_items_in_batch": self._count}
        vocabulary = self.model.config.get_text_config().vocab_size
        loss = self.model.loss_function(logits=logits, labels=self._left(labels), vocab_size=vocabulary, **counted)
        return type(output)(**{"loss": loss} | dict(output)) if isinstance(output, dict) else (loss, *output)

    def _left(self, labels: Tensor) -> Tensor:
        """The labels of the tokens that are left, [B, n]."""
        step = self.step()
        if step is None or step.index is None:
            return labels
        left = labels.gather(1, (step.index.long() - step.start).to(labels.device))
        return left if step.valid is None else torch.where(step.valid.to(labels.device), left, IGNORED)
