"""Deprecated name of `laconic.tasks.scenes.scenes`."""

from laconic.deprecated import moved

__getattr__ = moved("laconic.testbed.scenes", "laconic.tasks.scenes.scenes")
