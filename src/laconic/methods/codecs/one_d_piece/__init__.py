"""One-D-Piece: an image as a sequence of tokens of which any prefix decodes (arXiv 2501.10064)."""

from laconic.methods.codecs.one_d_piece.method import OneDPiece as OneDPiece
