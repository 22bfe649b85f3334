"""Distillation: a narrower model of the same class that learns what the model finds likely (arXiv 1503.02531)."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, ClassVar

from transformers import PreTrainedModel

from laconic.errors import ArtifactError, BudgetError, UnsupportedModelError
from laconic.method import register
from laconic.weights.edit import FittedEdit
from laconic.weights.resize import become

SIZES = ("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads")
MULTIPLE = 8
"""Neurons of an MLP come in multiples of it, which fast kernels ask for."""


@register(
    "distillation",
    site="weights",
    mechanism="distillation",
    source="arXiv 1503.02531",
    query_aware=False,
    training="trained",
    inferred="students are as deep as the model, narrower everywhere alike, and begin at random",
    fit="laconic.methods.weights.distillation.fit:DistillationFit",
)
@dataclass(kw_only=True)
class Distillation(FittedEdit):
    """Run a narrower model of the same class in the place of this one, trained on what this one finds likely.

    All layers stay; the stream, the heads and the neurons become fewer by one share, and heads keep their size. The share
    belongs to the artifact: leave ``keep`` out, or give the same; 1.0 changes nothing.

    Args:
        artifact: what `laconic fit distillation` wrote: all weights of the student.
    """

    default_keep: ClassVar[float | None] = None
    fixed_budget: ClassVar[bool] = True
    saves: ClassVar[str] = (
        "bytes, FLOPs and time: a narrower model of the same class, which stores fewer keys and values, too"
    )

    def prepare(self, model: PreTrainedModel) -> None:
        found = self.found(model)
        share = float(found.data["share"])
        if self.keep is not None and abs(self.keep - share) > 0.005:
            raise BudgetError(
                f"distillation: keep={self.keep}, but the artifact keeps {share:g} of the width: leave keep out, or give it."
            )
        self._student = student_of(model, share)
        wanted = {name: tuple(p.shape) for name, p in self._student.named_parameters()}
        wrong = [name for name, shape in wanted.items() if name not in found.tensors or found.tensors[name].shape != shape]
        if wrong:
            raise ArtifactError(
                f"distillation: the artifact has no {wrong[0]} of shape {wanted[wrong[0]]}; make one for this model."
            )
        self._student.load_state_dict(found.tensors, strict=False)  # tied weights are in it once

    def edit(self, model: PreTrainedModel) -> dict[str, Any]:
        config, smaller = model.config.get_text_config(), self._student.config.get_text_config()
        before = config.hidden_size
        become(model, self._student)
        for name in SIZES:
            setattr(config, name, getattr(smaller, name))
        return {"width": config.hidden_size, "width before": before, "neurons": config.intermediate_size}


def student_of(model: PreTrainedModel, share: float) -> PreTrainedModel:
    """A fresh model like `model`, as deep and so much narrower, in fp32 on the CPU. KV heads keep as many query heads.

    Raises:
        UnsupportedModelError: a model whose configuration does not name these sizes, or whose layers have experts.
    """
    config: Any = copy.deepcopy(model.config)
    text = config.get_text_config()
    if text is not config or any(not isinstance(getattr(text, name, None), int) for name in SIZES) or _experts(text):
        raise UnsupportedModelError(
            f"distillation: {type(model).__name__} is no dense language model whose configuration names {', '.join(SIZES)}; "
            "choose another method (`laconic methods --site weights` lists them)."
        )
    each = config.hidden_size // config.num_attention_heads  # of the stream, for every head
    queries, head = config.num_attention_heads // config.num_key_value_heads, getattr(config, "head_dim", None) or each
    config.num_key_value_heads = max(1, round(share * config.num_key_value_heads))
    config.num_attention_heads = queries * config.num_key_value_heads
    config.hidden_size = each * config.num_attention_heads
    config.intermediate_size = MULTIPLE * max(1, round(share * config.intermediate_size / MULTIPLE))
    config.head_dim = head
    return type(model)(config).float().eval()  # type: ignore[no-any-return]


def _experts(config: Any) -> bool:
    return any(getattr(config, name, None) for name in ("num_local_experts", "num_experts", "n_routed_experts"))
