"""The shipped tokenizer and language model, loaded once: fixtures for the folders whose tests use them."""

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from laconic.shipped import model_path


@pytest.fixture(scope="session")
def tokenizer():
    return AutoTokenizer.from_pretrained(model_path("testbed/lm"))


@pytest.fixture(scope="session")
def model():
    return AutoModelForCausalLM.from_pretrained(model_path("testbed/lm")).eval()
