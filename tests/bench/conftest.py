"""A tiny model of text and a small random LLaVA, once for all tests of the bench, and two token methods for the latter."""

import pytest
from helpers.bench_tools import tiny
from helpers.image_tools import enter_methods, leave_methods, small_vlm


@pytest.fixture(scope="session")
def tiny_model():
    return tiny()


@pytest.fixture(scope="session")
def vlm():
    return small_vlm()


@pytest.fixture(scope="module")
def token_methods():
    """Names of two methods that are in the catalogue while a module's tests run."""
    names = enter_methods()
    yield names
    leave_methods(names)
