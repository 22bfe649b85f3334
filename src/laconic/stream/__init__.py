"""The stream seam: hidden states between two layers, and how a method shortens them."""
