"""Where audio tokens are, on unmodified Hugging Face models: one short adapter per family."""

from laconic.families.audio import qwen2_audio as qwen2_audio  # importing a family registers it
from laconic.families.audio.base import FRAME, AudioFamily
from laconic.families.audio.sound import energy, loudness, seconds
from laconic.families.audio.whisper import WHISPER
from laconic.families.vision.base import supported_audio_families

__all__ = ["FRAME", "WHISPER", "AudioFamily", "energy", "loudness", "seconds", "supported_audio_families"]
