"""Explainability-guided compression: a small network guesses from layer 0's attention which visual tokens an explanation"""

from laconic.methods.tokens.explainability.method import Explainability as Explainability
