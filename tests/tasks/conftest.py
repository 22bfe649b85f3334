"""The shipped tokenizer and model."""

from helpers.testbed_model import model as model
from helpers.testbed_model import tokenizer as tokenizer
