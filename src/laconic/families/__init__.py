"""Model families: where the layers are and how positions are rotated. One short adapter each; the generic one fits the rest."""

from laconic.families import gemma as _gemma
from laconic.families import llama as _llama
from laconic.families.base import Family, family_of, supported_families

__all__ = ["Family", "family_of", "supported_families"]
