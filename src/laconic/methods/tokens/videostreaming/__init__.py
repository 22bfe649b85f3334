"""VideoStreaming: a small decoder writes a memory of every clip, and the question picks some (arXiv 2405.16009)."""

from laconic.methods.tokens.videostreaming.method import VideoStreaming as VideoStreaming
