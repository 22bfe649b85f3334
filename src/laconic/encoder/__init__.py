"""Methods that work on what a vision encoder says, or inside of it. One file per system."""

from laconic.encoder.correlation_guided import CorrelationGuided
from laconic.encoder.globalcom2 import GlobalCom2
from laconic.encoder.prumerge import PruMerge
from laconic.encoder.recoverable_compression import RecoverableCompression
from laconic.encoder.tome import ToMe
from laconic.encoder.visionzip import VisionZip

__all__ = [
    "CorrelationGuided",
    "GlobalCom2",
    "PruMerge",
    "RecoverableCompression",
    "ToMe",
    "VisionZip",
]
