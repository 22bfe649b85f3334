"""What methods learn or measure about one model offline."""
