"""The compressed cache, and the methods that decide what stays in it. One file per published system."""

from laconic.cache.adakv import AdaKV
from laconic.cache.base import CacheMethod
from laconic.cache.compresskv import CompressKV
from laconic.cache.dapq import DapQ
from laconic.cache.ems import EMS
from laconic.cache.expected_attention import ExpectedAttention
from laconic.cache.fastkv import FastKV
from laconic.cache.gear import GEAR
from laconic.cache.h2o import H2O
from laconic.cache.keydiff import KeyDiff
from laconic.cache.kivi import KIVI
from laconic.cache.knorm import KNorm
from laconic.cache.lococo import LoCoCo
from laconic.cache.minicache import MiniCache
from laconic.cache.pyramidkv import PyramidKV
from laconic.cache.random import Random
from laconic.cache.razorattention import RazorAttention
from laconic.cache.snapkv import SnapKV
from laconic.cache.streaming_llm import StreamingLLM
from laconic.cache.tova import TOVA
from laconic.cache.treekv import TreeKV
from laconic.cache.truncate import Truncate
from laconic.cache.zipvl import ZipVL

__all__ = [
    "EMS",
    "GEAR",
    "H2O",
    "KIVI",
    "TOVA",
    "AdaKV",
    "CacheMethod",
    "CompressKV",
    "DapQ",
    "ExpectedAttention",
    "FastKV",
    "KNorm",
    "KeyDiff",
    "LoCoCo",
    "MiniCache",
    "PyramidKV",
    "Random",
    "RazorAttention",
    "SnapKV",
    "StreamingLLM",
    "TreeKV",
    "Truncate",
    "ZipVL",
]
