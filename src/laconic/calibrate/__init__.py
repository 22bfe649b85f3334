"""What methods learn about one model offline, written as a recipe: `laconic calibrate NAME`. One file per method."""

from laconic.calibrate import compresskv, fastkv, fitprune, razorattention, vtw
from laconic.calibrate.base import CALIBRATIONS, Calibration, calibrate, calibration

__all__ = [
    "CALIBRATIONS",
    "Calibration",
    "calibrate",
    "calibration",
    "compresskv",
    "fastkv",
    "fitprune",
    "razorattention",
    "vtw",
]
