"""FitPrune: how many visual tokens each layer deletes is fitted offline; attention says which ones (arXiv 2409.10197)."""

from laconic.methods.tokens.fitprune.method import FitPrune as FitPrune
