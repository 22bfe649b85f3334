"""ADSC: a few layers pass on every r-th visual token only; a model so tuned packs what matters into them (2602.12618)."""

from laconic.methods.tokens.adsc.method import ADSC as ADSC
