"""A LLaVA-class model with random weights (the testbed's shape: 8 layers, 144 visual tokens) and prompts for it."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import LlavaForConditionalGeneration

import laconic
from laconic.artifact import Artifact, numbers
from laconic.methods.tokens.cacovid.network import Policy
from laconic.methods.tokens.crosslmm.network import Beside
from laconic.methods.tokens.explainability.network import RelevanceNet
from laconic.methods.tokens.hicom.network import Hybrid
from laconic.methods.tokens.llava_mini.network import Mini
from laconic.methods.tokens.oryx.network import Dynamic
from laconic.methods.tokens.pvc.network import Progressive
from laconic.methods.tokens.tempo.network import Notes
from laconic.methods.tokens.texthawk2.network import TwoSteps
from laconic.methods.tokens.videostreaming.network import Streaming
from laconic.tasks.scenes.scenes import SIZE
from laconic.testbed.vlm_model import IMAGE as IMAGE_WORD
from laconic.testbed.vlm_model import SPECIALS, VISUAL_TOKENS, build_model

IMAGE = SPECIALS.index(IMAGE_WORD)


def random_vlm() -> LlavaForConditionalGeneration:
    """Weights large enough for tokens to matter to each other."""
    torch.manual_seed(0)
    model = build_model().eval().requires_grad_(False)
    for parameter in model.model.language_model.parameters():
        parameter.mul_(3.0 if parameter.ndim == 2 else 1.0)
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 0
    return model


def inputs(texts: list[tuple[int, int]], seed: int = 0, images: int = 1) -> dict[str, Tensor]:
    """A batch of random prompts, padded on the left: `texts[b]` = (text tokens before, after the `images` images)."""
    torch.manual_seed(seed)
    given = prompts(texts, images * VISUAL_TOKENS * [IMAGE])
    return given | {"pixel_values": torch.randn(len(texts) * images, 3, SIZE, SIZE)}


def prompts(texts: list[tuple[int, int]], seen: list[int]) -> dict[str, Tensor]:
    """The token ids of `inputs`, with the placeholders `seen`."""
    rows = []
    for before, behind in texts:
        text = torch.randint(10, 400, (before + behind,))
        rows.append(torch.cat([text[:before], torch.tensor(seen), text[before:]]))
    most = max(len(row) for row in rows)
    ids = torch.zeros(len(rows), most, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for b, row in enumerate(rows):
        ids[b, most - len(row) :], mask[b, most - len(row) :] = row, 1
    return {"input_ids": ids, "attention_mask": mask}


def laconic_hooks(model: nn.Module) -> list[str]:
    """Hooks of laconic's that a model still has (transformers leaves some of its own)."""
    hooks = [hook for m in model.modules() for hook in (*m._forward_pre_hooks.values(), *m._forward_hooks.values())]
    return [repr(hook) for hook in hooks if getattr(hook, "__module__", "").startswith("laconic")]


SPECS = {
    "recoverable_compression": "recoverable_compression:text=llm",  # there is no text half of CLIP here
    "ts_llava": "ts_llava:thumbnails=0",
    "dyvte": "dyvte:exit_layer=2",
}
"""Parameters that suit the random model."""
FIXED = {"adsc", "crosslmm", "llavolta", "vtw", "pool", "downsample", "dyvte", "hicom", "llava_mini", "oryx", "texthawk2"}
FIXED |= {"pvc", "tempo", "videostreaming"}
"""Methods whose layers, strides or trained sizes cannot meet every budget: they stay below."""
COARSE = {"hicom", "oryx", "texthawk2", "pvc", "tempo", "videostreaming"}
"""Those whose next smaller size may be far below."""
LASTING = {"crosslmm"}
"""Those that every later token needs, too."""

METHODS = [
    entry.name
    for entry in laconic.list_methods()
    if entry.site in ("encoder", "tokens") and entry.modality not in ("text", "audio")
]


def made_for(model: LlavaForConditionalGeneration, folder: Path) -> dict[str, str]:
    """Specs of the methods that need something learned, with files made for `model`."""
    torch.manual_seed(0)
    net = RelevanceNet()
    with torch.no_grad():
        for weight in net.parameters():
            weight.mul_(5.0 if weight.ndim > 1 else 1.0)  # else all tokens are nearly equal to it
    data = {"kernel": net.kernel}
    Artifact.of("explainability", "trained", model, data, numbers(net)).save(folder / "net.safetensors")
    depth = model.config.text_config.num_hidden_layers
    fits = [{"reduction": 10 * i, "deleted": [0.1 * i] + [0.0] * (depth - 1)} for i in range(1, 10)]
    Artifact.of("fitprune", "measured", model, {"fits": fits}).save(folder / "fitprune.safetensors")
    steady = [{"keep": keep, "prune": [145] * 4, "merge": [145, 130, 110, 1 + round(144 * keep)]} for keep in (0.75, 0.5)]
    Artifact.of("diffrate", "trained", model, {"patches": 144, "schedules": steady}).save(folder / "diffrate.safetensors")
    crosslmm = {"sides": [8], "layers": [3, 7], "visual": True, "text": True, "side": 12}
    two_steps = {"pools": [1, 2], "group": [1, 4], "routing": [3, 0], "stages": [1, 2, 3, 4], "expansion": 1}
    two_steps |= {"tile": 12, "side": 12}
    compressors: dict[str, tuple[nn.Module, dict[str, Any]]] = {
        "cacovid": (Policy(model), {}),
        "crosslmm": (open_gates(Beside(model, (3, 7), True, True)), crosslmm),
        "hicom": (Hybrid(model, 4, "question"), {"blocks": [2], "learned": 4, "query": "question"}),
        "llava_mini": (Mini(model, (8,), 1), {"sides": [8], "fusion": 1}),
        "oryx": (Dynamic(model, 8), {"regions": [2], "inner": 8}),
        "texthawk2": (TwoSteps(model, two_steps["routing"], (1, 4), 1), two_steps),
        "pvc": (
            Progressive(model, 1, (4,), 8, "causal"),
            {"layers": 1, "blocks": [4], "window": 8, "order": "causal", "steps": True},
        ),
        "tempo": (Notes(model, 1, 24), {"layers": 1, "window": 4, "notes": 24}),
        "videostreaming": (Streaming(model, 1, 9), {"layers": 1, "length": 4, "summary": 9, "propagate": True}),
    }
    for name, (network, facts) in compressors.items():
        Artifact.of(name, "trained", model, facts, numbers(network)).save(folder / f"{name}.safetensors")
    return {
        **{name: f"{name}:artifact={folder / name}.safetensors" for name in compressors},
        "diffrate": f"diffrate:artifact={folder / 'diffrate.safetensors'}",
        "explainability": f"explainability:artifact={folder / 'net.safetensors'}",
        "fitprune": f"fitprune:artifact={folder / 'fitprune.safetensors'}",
    }


def open_gates(net: Beside) -> Beside:
    """The network with gates that let something through."""
    with torch.no_grad():
        for layer in net.layers:
            net.insert(layer).visual_gate.fill_(0.5)
            net.insert(layer).text_gate.fill_(0.5)
    return net


def method(name: str, made: dict[str, str] | None = None, **budget: float) -> laconic.Method:
    """The method at a budget; at keep=1.0 with its own defaults, which must be neutral."""
    if budget.get("keep") == 1.0:
        return laconic.create_method(name, **budget)
    return laconic.create_method({**SPECS, **(made or {})}.get(name, name), **({} if name == "dyvte" else budget))
