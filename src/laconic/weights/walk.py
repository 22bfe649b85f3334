"""A calibration text on its way through a decoder, layer by layer, each as it has become."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from laconic.families import family_of

ROWS = 4
"""Windows that run at once."""


@torch.no_grad()
def walk(model: PreTrainedModel, ids: Tensor) -> Iterator[tuple[int, Callable[[], list[Tensor]]]]:
    """Every decoder layer's number, and a function that runs the text through it as it is now. Later layers get what comes
    out after the loop's body has changed the layer.

    Args:
        ids: windows of tokens, [N, T].
    """
    batches = [_entered(model, rows.to(model.device)) for rows in ids.long().split(ROWS)]
    hidden, arguments = [x for x, _ in batches], [given for _, given in batches]
    layers = family_of(model).layers(model)
    for number, layer in enumerate(layers):
        run = partial(_through, layer, hidden, [given[number] for given in arguments])
        yield number, run
        if number + 1 < len(layers):
            hidden = run()


@torch.no_grad()
def _through(layer: nn.Module, hidden: list[Tensor], arguments: list[dict[str, Any]]) -> list[Tensor]:
    """What comes out of a layer, batch by batch."""
    outputs = (layer(x, **given) for x, given in zip(hidden, arguments, strict=True))
    return [output[0] if isinstance(output, tuple) else output for output in outputs]


def _entered(model: PreTrainedModel, ids: Tensor) -> tuple[Tensor, list[dict[str, Any]]]:
    """What enters layer 0 [B, T, D], and the other arguments of every layer."""
    family = family_of(model)
    hidden: list[Tensor] = []
    arguments: list[dict[str, Any]] = []

    def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        hidden.append(args[0] if args else kwargs.pop("hidden_states"))
        arguments.append(kwargs)

    with ExitStack() as hooks:
        for layer in family.layers(model):
            hooks.callback(layer.register_forward_pre_hook(note, with_kwargs=True).remove)
        family.stack(model)(input_ids=ids, use_cache=False)
    return hidden[0], arguments


@contextmanager
def inputs_of(linears: Mapping[str, nn.Linear], look: Callable[[str, Tensor], None]) -> Iterator[dict[str, str]]:
    """Meanwhile `look` gets the inputs of linear maps as they run, [rows, in], once where several read the same tensor.

    Gives the name under which each map's input was looked at: its own, or that of the first to read the same.
    """
    leader: dict[str, str] = {}
    held: dict[int, tuple[str, Tensor]] = {}

    def watch(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
            x = args[0]
            first, same = held.get(id(x), ("", None))
            leader[name] = first if same is x else name
            if same is not x:
                held[id(x)] = (name, x)  # held, so that no other tensor gets its id
                look(name, x.detach().flatten(0, -2).float())

        return hook

    def forget(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        held.clear()

    with ExitStack() as hooks:
        names = list(linears)
        for name in names:
            hooks.callback(linears[name].register_forward_pre_hook(watch(name)).remove)
        hooks.callback(linears[names[-1]].register_forward_hook(forget).remove)
        yield leader
