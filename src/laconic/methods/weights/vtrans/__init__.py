"""VTrans: widths, heads and neurons that drown in their own noise are removed (arXiv 2406.05276)."""

from laconic.methods.weights.vtrans.method import VTrans as VTrans
