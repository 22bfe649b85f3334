"""Pure tensor functions: tensors in, tensors out, shapes in the first line of every docstring."""
