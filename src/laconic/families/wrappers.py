"""What users wrap around a transformers model: adapters, compiled forms, parallel copies. What is inside, or why not."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from laconic.errors import UnsupportedModelError

COPIES = {
    "DataParallel": "runs copies of the model on several devices",
    "FullyShardedDataParallel": "shards the model's layers, which laconic hooks",
}
"""Wrappers that leave no one model to act on."""


def unwrapped(model: Any) -> PreTrainedModel:
    """The transformers model itself, of a model with adapters (PEFT), a compiled one, or one in a wrapper that calls its
    `module`.

    Raises:
        UnsupportedModelError: it is no model, or a wrapper around no single one; the message says what to pass.
    """
    found = model
    while not isinstance(found, PreTrainedModel):
        kind = type(found).__name__
        if kind in COPIES:
            raise UnsupportedModelError(f"{kind} {COPIES[kind]}; give compress() the model that it was made of.")
        inner = _inside(found)
        if inner is None:
            raise UnsupportedModelError(_no_model(model))
        found = inner
    return found


def _inside(wrapper: Any) -> Any | None:
    """What `wrapper` calls; None if it is none."""
    if not isinstance(wrapper, nn.Module):
        return None
    if isinstance(compiled := getattr(wrapper, "_orig_mod", None), nn.Module):  # torch.compile
        return compiled
    return _adapted(wrapper).model if hasattr(wrapper, "peft_config") else getattr(wrapper, "module", None)


def _adapted(wrapper: Any) -> Any:
    """What holds the model in a PEFT model, which has adapters in place of some of its layers."""
    tuner, config = wrapper.base_model, wrapper.active_peft_config
    if config.is_prompt_learning:
        kind = getattr(config.peft_type, "value", config.peft_type)
        raise UnsupportedModelError(
            f"{kind} puts learned tokens before the prompt, which laconic cannot tell from it; use adapters in the layers "
            "(LoRA and the like)."
        )
    if "forward" in vars(type(tuner)):
        raise UnsupportedModelError(
            f"{type(tuner).__name__} computes more than the model's own forward; give compress() what merge_and_unload() "
            "returns."
        )
    return tuner


def _no_model(given: Any) -> str:
    """What to say of something that is no model, with the line to write."""
    needs = "compress() needs a transformers model"
    if isinstance(given, str):
        return f"{needs}, got the name {given!r}; load it first: model, tokenizer = laconic.load({given!r})."
    if isinstance(given, tuple) and given and isinstance(given[0], nn.Module):
        return f"{needs}, got a tuple; laconic.load() returns two things: model, tokenizer = laconic.load(...)."
    inner = getattr(given, "model", None)
    if isinstance(inner, PreTrainedModel):
        return f"{needs}, got {type(given).__name__}; pass its `.model`."
    return f"{needs}, got {type(given).__name__}."


@contextmanager
def called_directly(model: Any) -> Iterator[None]:
    """While open, whatever wraps `model` calls the transformers model inside as a module, so that its hooks run, and nothing
    in it runs compiled: a compressed cache changes shape from step to step. Both are as before when it closes."""
    with ExitStack() as restore:
        compiled = False
        around = list(_around(model))
        for module in [*around, *unwrapped(model).modules()]:
            original: Any = getattr(vars(module).get("forward"), "_torchdynamo_orig_callable", None)
            if original is not None:  # an OptimizedModule, or model.forward = torch.compile(model.forward)
                compiled = True
                _replace(restore, module, "forward", original)
            if module._compiled_call_impl is not None:  # model.compile()
                compiled = True
                _replace(restore, module, "_compiled_call_impl", None)
        for adapted in (module for module in around if hasattr(module, "peft_config") and not hasattr(module, "_orig_mod")):
            tuner = adapted.base_model  # calls model.forward, past the model's hooks
            _replace(restore, tuner, "forward", tuner.model.__call__)
        if compiled:
            warnings.warn(
                "torch.compile is set aside while the session is open: a compressed cache changes shape from step to step.",
                stacklevel=4,
            )
        yield


def _around(model: Any) -> Iterator[Any]:
    """The wrappers of a model, from outside."""
    while not isinstance(model, PreTrainedModel):
        yield model
        model = _inside(model)


def _replace(restore: ExitStack, module: nn.Module, name: str, value: Any) -> None:
    """Set an attribute of the object, and put back, or remove, when `restore` closes."""
    had = vars(module).get(name, restore)
    vars(module)[name] = value
    restore.callback(lambda: vars(module).pop(name) if had is restore else vars(module).update({name: had}))
