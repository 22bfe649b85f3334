"""The compressed cache, and the methods that decide what stays in it. One file per published system."""

from laconic.cache.adakv import AdaKV
from laconic.cache.base import CacheMethod
from laconic.cache.expected_attention import ExpectedAttention
from laconic.cache.fastkv import FastKV
from laconic.cache.h2o import H2O
from laconic.cache.keydiff import KeyDiff
from laconic.cache.knorm import KNorm
from laconic.cache.pyramidkv import PyramidKV
from laconic.cache.random import Random
from laconic.cache.snapkv import SnapKV
from laconic.cache.streaming_llm import StreamingLLM
from laconic.cache.tova import TOVA
from laconic.cache.truncate import Truncate

__all__ = [
    "H2O",
    "TOVA",
    "AdaKV",
    "CacheMethod",
    "ExpectedAttention",
    "FastKV",
    "KNorm",
    "KeyDiff",
    "PyramidKV",
    "Random",
    "SnapKV",
    "StreamingLLM",
    "Truncate",
]
