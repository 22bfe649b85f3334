"""The stream: hidden states between two layers, how a method shortens them, and the methods that do. One file per system."""

from laconic.tokens.adsc import ADSC
from laconic.tokens.apet import ApET
from laconic.tokens.base import TokenMethod
from laconic.tokens.divprune import DivPrune
from laconic.tokens.downsample import Downsample
from laconic.tokens.dyvte import DyVTE
from laconic.tokens.explainability import Explainability
from laconic.tokens.fastv import FastV
from laconic.tokens.fitprune import FitPrune
from laconic.tokens.llavolta import LLaVolta
from laconic.tokens.pool import Pool
from laconic.tokens.pyramiddrop import PyramidDrop
from laconic.tokens.random_visual import RandomVisual
from laconic.tokens.sparsevlm import SparseVLM
from laconic.tokens.ts_llava import TSLlava
from laconic.tokens.vtw import VTW

__all__ = [
    "ADSC",
    "VTW",
    "ApET",
    "DivPrune",
    "Downsample",
    "DyVTE",
    "Explainability",
    "FastV",
    "FitPrune",
    "LLaVolta",
    "Pool",
    "PyramidDrop",
    "RandomVisual",
    "SparseVLM",
    "TSLlava",
    "TokenMethod",
]
