"""Losses that several fits share: of answers through a session whose stream is shorter than the prompt, and of students;
and how many answers are right."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from laconic.fit.text import IGNORED
from laconic.session import Session


def short_labels(session: Session | None, labels: Tensor) -> Tensor:
    """Labels [B, T] of the tokens that reached the end of the latest pass, [B, m]; -100 at padding.

    Call the model without ``labels=`` inside the session: it would compare them with all T tokens.

    Args:
        session: the one in which the model was called, with token methods only; None when nothing was shortened.
    """
    if session is None:
        return labels
    last = len(session.stack.layers) - 1  # type: ignore[arg-type]
    rows = [session.kept(last, row=b) for b in range(len(labels))]
    short = labels.new_full((len(labels), max(map(len, rows))), IGNORED)
    for b, row in enumerate(rows):
        short[b, short.shape[1] - len(row) :] = labels[b, row.to(labels.device)]
    return short


def answer_loss(session: Session | None, logits: Tensor, labels: Tensor, count: int | Tensor | None = None) -> Tensor:
    """Next-token cross-entropy of the labelled tokens: their mean, or the sum over `count`, if given (with gradient
    accumulation: the labelled tokens of all micro-batches).

    Args:
        logits: of the latest pass, [B, m, V]. labels: [B, T]; -100 where nothing is asked.
    """
    wanted = short_labels(session, labels)[:, 1:].flatten()
    total = F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), wanted, ignore_index=IGNORED, reduction="sum")
    return total / torch.as_tensor((wanted != IGNORED).sum() if count is None else count, device=total.device)


def right(logits: Tensor, wanted: Tensor) -> Tensor:
    """Which rows' wanted tokens [B, m - 1] are all the likeliest ones after logits [B, m, V]; [B], bool."""
    same: Tensor = (logits[:, :-1].argmax(-1) == wanted) | (wanted == IGNORED)
    return same.all(1)


class RightAnswers:
    """How many answers were right since this was last told, for the log of a training."""

    def __init__(self) -> None:
        self._noted: list[Tensor] = []

    def note(self, right: Tensor) -> None:
        """Whether each of some answers was right, as booleans or rewards of 0 and 1."""
        self._noted.append(right.detach().flatten().to(torch.float32))

    def told(self) -> str:
        """The share, and counting begins anew; nothing where no answer was asked for."""
        if not self._noted:
            return ""
        share, self._noted = float(torch.cat(self._noted).mean()), []
        return f"right {100 * share:.1f} %"


def student_loss(student: Tensor, teacher: Tensor, top: int | None = None) -> Tensor:
    """``- sum over tokens of p_T log p_S``, mean over positions, [..., V] each.

    Args:
        top: only so many of the teacher's most likely tokens count; None: all. Their probabilities are those of the whole
            vocabulary and are not made to sum to one: where the student is the teacher, that is what leaves a gradient.
    """
    said, wanted = student.float().log_softmax(-1), teacher.float().softmax(-1)
    if top is not None:
        wanted, places = wanted.topk(top, -1)
        said = said.gather(-1, places)
    return -(wanted * said).sum(-1).mean()
