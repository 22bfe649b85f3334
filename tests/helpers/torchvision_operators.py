"""A plugin of pytest (`-p helpers.torchvision_operators`): torchvision can be imported beside a torch without CUDA.

Its compiled half does not load there. Processors do not use it, but on import torchvision registers stand-ins for two of its
operators, which have to be declared before; otherwise transformers, which imports torchvision, fails on models, too.
"""

import importlib.util

import torch

if importlib.util.find_spec("torchvision") and torch.version.cuda is None:
    OPERATORS = torch.library.Library("torchvision", "DEF")  # they are declared for as long as this is referred to
    for operator in ("nms", "qnms"):
        OPERATORS.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
