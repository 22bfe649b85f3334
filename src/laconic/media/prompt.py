"""Deprecated name of `laconic.prompts.media`."""

from laconic.deprecated import moved

__getattr__ = moved("laconic.media.prompt", "laconic.prompts.media")
