"""Where audio tokens are, on unmodified Hugging Face models: one short adapter per family."""

from laconic.families.audio import qwen2_audio as qwen2_audio  # importing a family registers it
from laconic.families.audio.base import FRAME, AudioFamily
from laconic.families.audio.sound import energy, loudness, seconds

__all__ = ["FRAME", "AudioFamily", "energy", "loudness", "seconds"]
