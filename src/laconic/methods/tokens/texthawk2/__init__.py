"""TextHawk2: queries from the image itself gather detail, then neighbours are joined in reading order (arXiv 2410.05261)."""

from laconic.methods.tokens.texthawk2.method import TextHawk2 as TextHawk2
