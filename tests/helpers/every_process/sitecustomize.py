"""Run by Python at its start where this folder is on the path: vLLM looks at its models in processes of their own, which
need torchvision's operators, too."""

from helpers import torchvision_operators as torchvision_operators
