"""LoRA on the encoders of a network: their weights stay the model's, and low-rank updates are trained (arXiv 2106.09685)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from laconic.artifact import Artifact
from laconic.errors import ArtifactError, MissingPackageError
from laconic.memory.encoder import Encoder

M = TypeVar("M", bound=nn.Module)
UPDATE = ".lora_"


def adapt(network: M, rank: int) -> M:
    """Give the attention projections of every `Encoder` in `network` updates of a rank, by peft; the rest of the encoder is
    frozen and not saved with the network. They begin at zero and are added with a factor of 1.

    Raises:
        MissingPackageError: peft is not installed. ValueError: there is no encoder.
    """
    encoders = [module for module in network.modules() if isinstance(module, Encoder)]
    if not encoders:
        raise ValueError(f"rank={rank}: {type(network).__name__} has no copy of the model's decoder to adapt; leave it out.")
    _check_installed(rank)
    from peft import LoraConfig, inject_adapter_in_model

    for encoder in encoders:
        encoder.requires_grad_(False)
        config = LoraConfig(r=rank, lora_alpha=rank, target_modules=_projections(encoder))
        inject_adapter_in_model(config, encoder.decoder)
        encoder.register_state_dict_post_hook(_updates_alone)
        encoder.register_load_state_dict_post_hook(_all_but_updates_are_there)
    return network


def merge(network: M) -> M:
    """Add the updates to the weights: from then on the encoders cost what the model's decoder costs."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, BaseTunerLayer):
                module.merge()
    return network


def export(artifact: Artifact, folder: str | Path) -> None:
    """Write the updates as a folder that peft loads on a plain language model: ``PeftModel.from_pretrained(model, folder)``.

    Raises:
        ArtifactError: it was trained without a rank, or holds several encoders. MissingPackageError: peft is not installed.
    """
    rank, tensors = artifact.data.get("rank"), dict[str, Tensor]()
    for name, x in artifact.tensors.items():
        around, found, own = name.rpartition("decoder.layers.")
        if found and UPDATE in own:
            key = f"base_model.model.model.layers.{own.replace('.default', '')}"
            if key in tensors:
                raise ArtifactError(f"{artifact.method} has several encoders ({around}...); a folder of peft holds one.")
            tensors[key] = x.contiguous()
    if not rank or not tensors:
        raise ArtifactError(f"this artifact of {artifact.method} holds no LoRA; train it with --set rank=16.")
    _check_installed(rank)
    from peft import LoraConfig

    names = sorted({name.split(UPDATE)[0].rsplit(".", 1)[1] for name in tensors})
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=names, base_model_name_or_path=artifact.model)
    config.save_pretrained(str(folder))
    save_file(tensors, folder / "adapter_model.safetensors")


def _check_installed(rank: int) -> None:
    try:
        import peft  # noqa: F401
    except ImportError:
        raise MissingPackageError(f"rank={rank} needs peft: pip install 'laconic-transformers[lora]'.") from None


def _projections(encoder: Encoder) -> list[str]:
    """Names of the linear layers of attention."""
    found = {
        name.rpartition(".")[2]
        for name, module in encoder.decoder.named_modules()
        if isinstance(module, nn.Linear) and "attn" in name
    }
    return sorted(found)


def _updates_alone(module: nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    for name in [name for name in state if name.startswith(prefix) and UPDATE not in name]:
        del state[name]


def _all_but_updates_are_there(module: nn.Module, keys: Any) -> None:
    own = {name for name, _ in module.named_parameters() if UPDATE not in name}
    keys.missing_keys[:] = [key for key in keys.missing_keys if not any(key.endswith(name) for name in own)]
