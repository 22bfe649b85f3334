"""Model families: where the layers are and how positions are rotated. One short adapter each; a generic one for the rest."""

from laconic.families import gemma as gemma  # importing a family registers it
from laconic.families import llama as llama
from laconic.families.base import Family, family_of, supported_families

__all__ = ["Family", "family_of", "supported_families"]
