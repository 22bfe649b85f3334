"""Prompts of text and images as token ids and pixels."""
