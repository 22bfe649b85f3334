"""What a model does between a prompt and its answer: thinking that is cut short, or done without words."""
