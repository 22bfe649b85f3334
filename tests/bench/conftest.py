"""A tiny model, once for all tests of the bench."""

import pytest
from helpers.bench_tools import tiny


@pytest.fixture(scope="session")
def tiny_model():
    return tiny()
