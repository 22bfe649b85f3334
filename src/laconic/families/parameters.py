"""A model's parameters as plain numbers, however they were loaded."""

from __future__ import annotations

from collections.abc import Iterator

from accelerate.utils import align_module_device
from torch import Tensor, nn


def plain_parameters(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Names and values of all parameters. Of a tensor class of its own (torchao) the numbers that it stands for, and of one
    that waits elsewhere (`device_map` with offloading) what is loaded when its module runs."""
    for name, weight in model.named_parameters():
        values = weight.detach()
        if values.is_meta:
            path, _, leaf = name.rpartition(".")
            module = model.get_submodule(path)
            with align_module_device(module, "cpu"):
                values = module.get_parameter(leaf).detach()
        yield name, values if type(weight.data) is Tensor else values.dequantize()
