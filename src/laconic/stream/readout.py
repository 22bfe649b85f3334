"""For networks that stand between encoder and projector: what they read, and a trainable projector that begins as the
model's own."""

from __future__ import annotations

from torch import Tensor, nn
from transformers import PreTrainedModel

from laconic.errors import UnsupportedModelError
from laconic.families.parameters import plain_parameters
from laconic.families.vision import VisualSpan, vision_family_of
from laconic.stream.stream import Stream


def readout(model: PreTrainedModel) -> nn.Sequential:
    """Linear, GELU, Linear from encoder width to decoder width, fp32 and trainable, with the weights of the model's own
    projector; the model's stay as they are.

    Raises:
        UnsupportedModelError: a projector that is not two linear layers with a GELU between them, as LLaVA's is, or one that
            reads more than one patch.
    """
    family = vision_family_of(model)
    projector = family.projector(model)
    linear = [] if projector is None else [m for m in projector.modules() if isinstance(m, nn.Linear)]
    act = None if projector is None else getattr(projector, "act", None)
    if len(linear) != 2 or family.merges or "gelu" not in type(act).__name__.lower():
        raise UnsupportedModelError(
            f"this method begins with a copy of the projector, two linear layers with a GELU between them; that of this "
            f"{family.name} model is another kind. Use a model of LLaVA's class."
        )
    layers = [nn.Linear(m.in_features, m.out_features, bias=m.bias is not None) for m in linear]
    for own, layer in zip(linear, layers, strict=True):
        layer.load_state_dict({name: weight.float() for name, weight in plain_parameters(own)})
    return nn.Sequential(layers[0], nn.GELU(), layers[1])


def single_patches(stream: Stream, span: VisualSpan, name: str) -> Tensor:
    """Encoder features of a view, fp32 [H, W, C].

    Args:
        name: of the method, for the message.

    Raises:
        UnsupportedModelError: a model that merges or resamples patches before the decoder.
    """
    if span.resampled or tuple(span.patches.shape) != span.grid:
        raise UnsupportedModelError(
            f"{name} reads single patches, and a {stream.visual.family.name} model merges or resamples them before the "
            "decoder; use a method that acts on tokens, such as pool."
        )
    return stream.visual.patches(span).float()
