"""VTW, visual token withdrawal: from a middle layer on, the decoder runs on text alone (arXiv 2405.05803)."""

from laconic.methods.tokens.vtw.method import VTW as VTW
