"""Which modules a behaviour hangs on, to first order (arXiv 2504.02010, section on probing).

A module's output moves by ``u = mean over the behaviour - mean over everything`` where the behaviour is. How much its loss
would change if the module's output moved on in that direction is ``|u_hat . dL/da|``: the module's importance for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from laconic.methods.lens.reasoning_meets_compression.behaviours import Response, Span

BEFORE = 5
"""Tokens before a span that count as part of the behaviour when its direction is taken."""


def directions(model: Any, modules: Mapping[str, nn.Module], responses: Sequence[Response], behaviour: str) -> list[Tensor]:
    """``u_hat`` of every module, [n] each: the mean of its outputs over the spans (each with `BEFORE` tokens more) of those
    responses that have some, less the mean over all tokens of all responses, at the length of the latter."""
    inside: list[list[Tensor]] = []
    everywhere: list[list[Tensor]] = []
    for one in responses:
        with torch.no_grad(), outputs_of(modules) as outputs:
            model(input_ids=torch.tensor([one.ids], device=model.device), use_cache=False)
        everywhere.append([x.mean(0) for x in outputs])
        if behaviour in one.spans:
            rows = sorted({t for s, e in one.spans[behaviour] for t in range(max(0, s - BEFORE), e)})
            inside.append([x[rows].mean(0) for x in outputs])
    if not inside:
        raise ValueError(f"no answer of the model shows {behaviour}; take more problems, or others.")
    plus, minus = _means(inside), _means(everywhere)
    moved = [p - m for p, m in zip(plus, minus, strict=True)]
    return [u * (m.norm() / u.norm().clamp(min=1e-12)) for u, m in zip(moved, minus, strict=True)]


def effects(
    model: Any, modules: Mapping[str, nn.Module], one: Response, spans: Sequence[Span], along: Sequence[Tensor]
) -> list[list[Tensor]]:
    """For every span and module: ``u_hat * g`` channel by channel, [n], with g the mean over the span of the gradient of the
    span's next-token loss by the module's output. The sum over channels, without its sign, is the module's importance."""
    with torch.enable_grad(), outputs_of(modules) as outputs:
        ids = torch.tensor([one.ids], device=model.device)
        embedded = model.get_input_embeddings()(ids).detach().requires_grad_()  # frozen weights have a graph then, too
        logits = model(inputs_embeds=embedded, use_cache=False).logits[0]
        found = []
        for start, end in spans:
            loss = cross_entropy(logits[start - 1 : end - 1], ids[0, start:end])
            gradients = torch.autograd.grad(loss, outputs, retain_graph=True)
            found.append([u * g[start:end].mean(0) for u, g in zip(along, gradients, strict=True)])
    return found


def importances(
    model: Any, modules: Mapping[str, nn.Module], responses: Sequence[Response], behaviour: str
) -> tuple[Tensor, list[Tensor]]:
    """How much a behaviour hangs on each module.

    Returns:
        ``|u_hat . g|`` of every response that shows the behaviour, mean over its spans, [R, M]; and ``|u_hat * g|`` of every
        channel of every module, mean over all spans, [n] each.
    """
    along = directions(model, modules, responses, behaviour)
    each, channels, spans = [], [torch.zeros_like(u) for u in along], 0
    for one in responses:
        if behaviour not in one.spans:
            continue
        found = effects(model, modules, one, one.spans[behaviour], along)
        each.append(torch.stack([torch.stack([x.sum().abs() for x in span]) for span in found]).mean(0))
        for span in found:
            for total, x in zip(channels, span, strict=True):
                total += x.abs()
        spans += len(found)
    return torch.stack(each), [total / spans for total in channels]


def shares(each: Tensor) -> Tensor:
    """Importances of responses [..., R, M] -> of the modules, with a sum of 1, [..., M]."""
    means = each.mean(-2)
    return means / means.sum(-1, keepdim=True).clamp(min=1e-12)


def shift(base: Tensor, compressed: Tensor) -> Tensor:
    """How much of its share a module has lost by compression, with its sign: below 0 where it has gained, [M]."""
    return shares(base) - shares(compressed)


def intervals(each: Tensor, draws: int = 200, seed: int = 0) -> tuple[Tensor, Tensor]:
    """The middle 95 % of the modules' shares over responses drawn with replacement, lower and upper [M]."""
    drawn = torch.randint(len(each), (draws, len(each)), generator=torch.Generator().manual_seed(seed))
    low, high = torch.quantile(shares(each[drawn]), torch.tensor([0.025, 0.975]).to(each), dim=0)
    return low, high


@contextmanager
def outputs_of(modules: Mapping[str, nn.Module]) -> Iterator[list[Tensor]]:
    """Meanwhile the output of every module, [T, n], goes into the list, in the order in which they run."""
    outputs: list[Tensor] = []

    def note(module: nn.Module, args: Any, output: Tensor) -> Tensor:
        (rows,) = output  # one sequence; its rows go on, so that what is noted is part of the graph
        outputs.append(rows)
        return rows[None]

    with ExitStack() as hooks:
        for module in modules.values():
            hooks.callback(module.register_forward_hook(note).remove)
        yield outputs


def _means(rows: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    return [torch.stack(column).mean(0) for column in zip(*rows, strict=True)]
