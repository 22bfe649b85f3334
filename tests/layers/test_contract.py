"""Architectures: a session refuses them with what to do instead, and their settings are their budget."""

from dataclasses import dataclass

import pytest

import laconic
from laconic.layers.contract import ArchitectureMethod, ArchitectureSeam


@dataclass(kw_only=True)
class Plain(ArchitectureMethod):
    """No settings."""

    name = "plain"


def test_a_session_refuses_an_architecture_before_anything_is_changed(llama):
    before = [len(module._forward_pre_hooks) + len(module._forward_hooks) for module in llama.modules()]
    with pytest.raises(
        laconic.SessionError, match=r"plain is how a model is built.*laconic\.create_method\('plain'\)\.model"
    ):
        laconic.compress(llama, Plain())
    assert before == [len(module._forward_pre_hooks) + len(module._forward_hooks) for module in llama.modules()]
    assert Plain.seams == (ArchitectureSeam,)


@pytest.mark.parametrize("given", [{"keep": 0.5}, {"tokens": 8}, {"bytes": 1000}])
def test_a_budget_is_refused(given):
    with pytest.raises(laconic.BudgetError, match=r"plain: .*follows from its own settings"):
        Plain(**given)


def test_a_subclass_gives_the_model():
    with pytest.raises(NotImplementedError, match="Plain must define model"):
        Plain().model()
