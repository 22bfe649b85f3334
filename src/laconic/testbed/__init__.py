"""Small trained models that tell whether a compression method keeps what matters, without a download; and their training."""

from laconic.shipped import MODELS, model_path

__all__ = ["MODELS", "model_path"]
