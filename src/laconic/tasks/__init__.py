"""Questions with answers that can be scored."""
