"""Public benchmarks over images in their own file formats: prompts and scores as the official scripts have them."""

from laconic.tasks.files import FormatError
from laconic.tasks.public import gqa, mmbench, mme, pope, scienceqa, textvqa

__all__ = ["BENCHMARKS", "FormatError"]

BENCHMARKS = (mme.MME, pope.POPE, gqa.GQA, scienceqa.SCIENCEQA, textvqa.TEXTVQA, mmbench.MMBENCH)
