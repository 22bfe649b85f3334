"""A small random LLaVA, and two token methods that are in the catalogue while these tests run."""

import pytest
from helpers.image_tools import enter_methods, leave_methods, small_vlm


@pytest.fixture(scope="session")
def vlm():
    return small_vlm()


@pytest.fixture(scope="module", autouse=True)
def methods():
    names = enter_methods()
    yield names
    leave_methods(names)
