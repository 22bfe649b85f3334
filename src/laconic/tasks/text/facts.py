"""Facts as people write them: sentences of a few forms about places, each with a natural question and an answer of several
tokens. Two of one form stand in every context, so that each is a distractor of the other."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from laconic.tasks.task import Turn
from laconic.tasks.text.needles import Block

PER_FORM = 2

_PLACES = """
harbour office, north warehouse, old library, town archive, wind farm, ferry terminal, botanical garden, city museum,
post office, railway depot, fish market, observatory, power station, tea house, music school, printing house, water tower,
boat yard
"""
_GIVEN = """
Alma Boris Clara Dario Edith Felix Greta Hugo Irene Jonas Karla Leon Marta Nils Olga Pavel Rosa Stefan Thea Viktor
"""
_FAMILY = """
Abbott Bergman Castell Dorsey Eklund Farrow Gilbert Hadley Ingram Jansen Keller Lindqvist Mercer Norwood Osborne Prescott
Quigley Ramsey Sorensen Thornton
"""
PLACES = tuple(" ".join(place.split()) for place in _PLACES.split(","))
GIVEN, FAMILY = tuple(_GIVEN.split()), tuple(_FAMILY.split())
SHADES, COLOURS = ("dark", "light", "pale", "deep"), ("green", "red", "blue", "yellow", "brown", "grey")


@dataclass(frozen=True)
class Form:
    """One kind of fact.

    Attributes:
        opening: of the sentence, and of the answer: ``{place}`` is filled in.
        question: what asks for it.
        value: draws what completes the sentence.
    """

    opening: str
    question: str
    value: Callable[[random.Random], str]


FORMS: dict[str, Form] = {
    "code": Form(
        "The access code of the {place} is",
        "What is the access code of the {place}?",
        lambda rng: str(rng.randrange(1000, 10_000)),
    ),
    "manager": Form(
        "The manager of the {place} is",
        "Who is the manager of the {place}?",
        lambda rng: f"{rng.choice(GIVEN)} {rng.choice(FAMILY)}",
    ),
    "year": Form("The {place} was built in", "When was the {place} built?", lambda rng: str(rng.randrange(1700, 2000))),
    "door": Form(
        "The front door of the {place} is painted",
        "What colour is the front door of the {place}?",
        lambda rng: f"{rng.choice(SHADES)} {rng.choice(COLOURS)}",
    ),
}


def facts(rng: random.Random) -> Block:
    """`PER_FORM` facts of every form, about a few places, no value twice; the first ``len(FORMS)`` questions are one of each
    form."""
    places = rng.sample(PLACES, PER_FORM + 2)
    turns: list[list[Turn]] = []
    for form in FORMS.values():
        values: list[str] = []
        while len(values) < PER_FORM:
            value = form.value(rng)
            if value not in values:
                values.append(value)
        turns.append([_turn(form, place, value) for place, value in zip(rng.sample(places, PER_FORM), values, strict=True)])
    asked = [turn for row in zip(*turns, strict=True) for turn in row]
    return Block([[turn.gold] for turn in asked], asked)


def _turn(form: Form, place: str, value: str) -> Turn:
    opening = form.opening.format(place=place)
    return Turn(form.question.format(place=place), (value,), opening, f"{opening} {value}.")
