"""The stream: hidden states between two layers, and how a method shortens them."""
