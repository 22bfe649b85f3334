"""PVC: every frame is encoded after the ones before it, and a still image is a video of repeats (arXiv 2412.09613)."""

from laconic.methods.tokens.pvc.method import PVC as PVC
