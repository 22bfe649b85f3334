"""The Language of Visual Tokens: what corpus linguistics says of sequences of codes (arXiv 2411.05001)."""

from laconic.methods.lens.visual_language_statistics.method import VisualLanguageStatistics as VisualLanguageStatistics
from laconic.methods.lens.visual_language_statistics.statistics import compare as compare
from laconic.methods.lens.visual_language_statistics.statistics import stats as stats
