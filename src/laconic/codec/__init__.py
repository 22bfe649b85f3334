"""Codecs: media as a few tokens that decode on their own, and the file of such tokens."""
