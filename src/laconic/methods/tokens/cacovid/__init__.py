"""CaCoVID: a policy trained by whether answers are right chooses which visual tokens stay (arXiv 2602.01649)."""

from laconic.methods.tokens.cacovid.method import CaCoVID as CaCoVID
