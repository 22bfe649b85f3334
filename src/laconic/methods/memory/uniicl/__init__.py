"""UniICL: the frozen model itself compresses demonstrations, selects among them, and answers (arXiv 2405.17062)."""

from laconic.methods.memory.uniicl.method import UniICL as UniICL
