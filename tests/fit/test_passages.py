"""Passages for measurements come from documents that no evaluation reads."""

from laconic.fit.passages import passage, passage_ids
from laconic.tasks.text.corpus import documents


class Letters:
    """One token per character."""

    def encode(self, text, add_special_tokens):
        return [ord(letter) for letter in text]

    def decode(self, ids):
        return "".join(map(chr, ids))


def test_they_are_of_training_documents_and_follow_the_key():
    first, second = passage_ids(Letters(), 400, "0-0"), passage_ids(Letters(), 400, "0-1")
    assert len(first) == len(second) == 400 and first != second and first == passage_ids(Letters(), 400, "0-0")
    text = passage(Letters(), 3000, "0-2")
    whole = {"\n".join(lines) for lines in documents()}
    assert any(document in text for document in whole) and len(text) == 3000
    assert not any(document in text for document in ("\n".join(lines) for lines in documents(held_out=True)))
