"""When Reasoning Meets Compression: what compressed models lose, and which weights it hangs on (arXiv 2504.02010)."""

from laconic.methods.lens.reasoning_meets_compression.method import ReasoningMeetsCompression as ReasoningMeetsCompression
