import random

from laconic.tasks.text.facts import FORMS, PER_FORM, facts


def test_every_form_has_distractors_and_the_first_questions_are_one_of_each():
    for seed in range(20):
        block = facts(random.Random(seed))
        assert len(block.turns) == len(block.groups) == PER_FORM * len(FORMS)
        assert [[turn.gold] for turn in block.turns] == block.groups
        openings = [form.opening.partition("{place}")[0] for form in FORMS.values()]
        first = block.turns[: len(FORMS)]
        assert len({turn.question for turn in block.turns}) == len(block.turns)
        for i, opening in enumerate(openings):
            assert first[i].prefix.startswith(opening)
            of_form = block.turns[i :: len(FORMS)]
            assert len({turn.answers for turn in of_form}) == PER_FORM
            assert all(
                turn.prefix.startswith(opening) and turn.gold == f"{turn.prefix} {turn.answers[0]}." for turn in of_form
            )
