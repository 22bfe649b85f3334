"""What a model is made of at one moment: to change it inside a block and have it back, to the last bit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from transformers import PretrainedConfig

_TABLES = ("_parameters", "_buffers", "_modules")


class Snapshot:
    """Which parameters, children, sizes and settings the modules of `model` have now. Nothing is copied: whatever changes
    the model must put new tensors and modules in the place of the old ones, and never write to those.

    Hooks, and which attention runs, are no part of it, so that it can be put back while a session is open.
    """

    def __init__(self, model: nn.Module):
        modules = list(model.modules())
        self._modules = [
            (module, _plain(module), {name: dict(vars(module)[name]) for name in _TABLES}) for module in modules
        ]
        configs = {id(c): c for m in modules if isinstance(c := getattr(m, "config", None), PretrainedConfig)}
        self._configs = [(config, _settings(config)) for config in configs.values()]

    def put(self) -> None:
        """Make the model what it was."""
        for module, plain, tables in self._modules:
            for name in _plain(module).keys() - plain.keys():
                del vars(module)[name]
            vars(module).update(plain)
            for name, table in tables.items():
                vars(module)[name].clear()
                vars(module)[name].update(table)
        for config, settings in self._configs:
            vars(config).update(settings)


@contextmanager
def restored(model: nn.Module) -> Iterator[None]:
    """After the block `model` is what it was before, also after an exception; see `Snapshot` for what the block may do."""
    before = Snapshot(model)
    try:
        yield
    finally:
        before.put()


def _plain(module: nn.Module) -> dict[str, Any]:
    """A module's own attributes: no tables of torch's, hooks among them."""
    return {name: value for name, value in vars(module).items() if name not in _TABLES and "_hooks" not in name}


def _settings(config: PretrainedConfig) -> dict[str, Any]:
    return {name: value for name, value in vars(config).items() if "attn_implementation" not in name}
