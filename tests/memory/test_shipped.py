"""Memories that ship for testbed/facts: what their cards must show at 2x, on contexts that no training drew."""

import random
from dataclasses import replace

import pytest
import torch

import laconic
from laconic.artifact import Artifact
from laconic.fit.memory import predicted, predicted_after
from laconic.fit.slots import SlotReadings
from laconic.memory.contract import PrefixMethod

RIGHT = {"autocompressor": 0.95, "c3": 0.95, "ccf": 0.95, "icae": 0.95, "x500": 0.85}


@pytest.fixture(scope="module")
def loaded():
    return laconic.load("testbed/facts")


@pytest.fixture(scope="module")
def reading(loaded):
    """64 contexts of 16 facts with 8 questions each; trainings draw from seeds of another form."""
    readings = SlotReadings(loaded[1])
    drawn = readings.draw(random.Random("evaluation"), 64, 16)
    return replace(drawn, learned=drawn.learned & (drawn.rest != readings.end))  # that a turn ends is no answer


@torch.no_grad()
def answered(model, method, reading, context):
    """The share of the reading's questions that are answered from the memory of `context`."""
    if isinstance(method, PrefixMethod):
        logits, wanted = predicted_after(model, reading, method.network(model, reading.opening, context, method.keep))
    else:
        logits, wanted = predicted(model, reading, method.network.contexts(model, context, method.keep))
    return float((logits.argmax(-1) == wanted).float().mean())


def test_all_that_ship_are_looked_at():
    assert {name.removesuffix("-testbed-facts") for name in Artifact.shipped("*-testbed-facts")} == set(RIGHT)


@pytest.mark.parametrize("name", sorted(RIGHT))
def test_questions_are_answered_from_the_memory_and_not_from_that_of_another(loaded, reading, name):
    method = laconic.create_method(name, keep=0.5)
    method.attach(loaded[0])
    right = answered(loaded[0], method, reading, reading.context)
    swapped = answered(loaded[0], method, reading, reading.context.roll(1, 0))
    assert right >= RIGHT[name] and swapped < 0.2  # a guess is right in one of eight


def test_one_is_found_by_its_name_alone(loaded):
    memory = laconic.Memory.of(*loaded, "c5 a3 f0 b1 d7 e2 h4 g6 i1 j2 k3 l4 m5 n6 o7 p0", "icae:keep=0.5")
    assert memory.entries == 9  # eight of sixteen, and what asks for an answer
