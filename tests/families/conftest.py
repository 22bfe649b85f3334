"""Tiny models, built once per run of the tests."""

import pytest
import torch
from helpers.zoo import ALL


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def build():
    """build(name, implementation="sdpa") -> a model that tests share and must leave as it was."""
    made = {}

    def get(name, implementation="sdpa"):
        if (name, implementation) not in made:
            made[name, implementation] = ALL[name].build(implementation)
        return made[name, implementation]

    return get
