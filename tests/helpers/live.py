"""What really stays in memory: every tensor that can be reached from an object, its whole storage counted once."""

from __future__ import annotations

import functools
import types
from collections.abc import Iterable, Iterator
from typing import Any

import torch

from laconic.measure.trace import Trace

ASIDE = (torch.nn.Module, Trace, type, types.ModuleType)
"""Not followed: a model's own tensors, and the trace, which is a record for people and not a part of the cache."""


def live(*roots: Any, besides: Iterable[int] = ()) -> dict[str, int]:
    """Bytes of the storages behind all tensors that are reachable from `roots`, each under a path that leads to it, without
    those at the addresses `besides`."""
    known = set(besides)
    found = {}
    for path, tensor in tensors(*roots):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            known.add(storage.data_ptr())
            found[path] = storage.nbytes()
    return found


def addresses(*roots: Any) -> set[int]:
    """Of the storages behind all tensors that are reachable from `roots`, a model's own among them."""
    modules = [root for root in roots if isinstance(root, torch.nn.Module)]
    own = [tensor for module in modules for tensor in (*module.parameters(), *module.buffers())]
    return {tensor.untyped_storage().data_ptr() for _, tensor in tensors(own, *roots)}


def tensors(*roots: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor that can be reached through attributes, containers, bound methods, closures and partial functions."""
    seen: dict[int, Any] = {}
    waiting: list[tuple[str, Any]] = [(type(root).__name__, root) for root in roots]
    while waiting:
        path, item = waiting.pop()
        if id(item) in seen or isinstance(item, ASIDE):
            continue
        seen[id(item)] = item  # kept, or another object might get its number
        if isinstance(item, torch.Tensor):
            yield path, item
        else:
            waiting += [(f"{path}{step}", inner) for step, inner in _inside(item)]


def _inside(item: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(item, dict):
        yield from ((f"[{name!r}]", x) for name, x in item.items())
        yield from (("(key)", name) for name in item)
    elif isinstance(item, list | tuple | set | frozenset):
        yield from ((f"[{i}]", x) for i, x in enumerate(item))
    elif isinstance(item, types.MethodType):
        yield from ((".self", item.__self__), ("()", item.__func__))
    elif isinstance(item, types.FunctionType):
        yield from (("()", cell.cell_contents) for cell in item.__closure__ or ())
    elif isinstance(item, functools.partial):
        yield from (("()", x) for x in (item.func, item.args, item.keywords))
    else:
        yield from ((f".{name}", x) for name, x in getattr(item, "__dict__", {}).items())
