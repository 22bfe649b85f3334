"""`laconic.shorten`: an ordered part of the text, within its budget."""

from dataclasses import dataclass

import pytest
from helpers.text_tools import TEXT, scorer

import laconic
from laconic.errors import BudgetError, ProtectError
from laconic.prompts.text import PromptError
from laconic.shortening.shorten import joined

TOKENIZER = scorer().tokenizer
ALL = [
    laconic.TruncateText,
    laconic.RandomText,
    laconic.BM25,
    lambda **given: laconic.SelectiveContext(scorer=scorer(), **given),
    lambda **given: laconic.LLMLingua(scorer=scorer(), **given),
    lambda **given: laconic.LongLLMLingua(scorer=scorer(), **given),
]
QUESTION = "What is the code for falcon?"


def is_part(short: str, text: str) -> bool:
    letters = iter(text)
    return all(letter in letters for letter in short)


@pytest.mark.parametrize("method", ALL)
def test_everything_stays_at_a_share_of_one(method):
    done = laconic.shorten(TEXT, method(keep=1.0), question=QUESTION, tokenizer=TOKENIZER)
    assert done.text == TEXT and done.achieved == done.asked == 1.0 and done.flops == 0


@pytest.mark.parametrize("method", ALL)
@pytest.mark.parametrize("keep", [0.5, 0.25, 0.1])
def test_the_budget_is_met_by_an_ordered_part(method, keep):
    done = laconic.shorten(TEXT, method(keep=keep), question=QUESTION)
    sizes = [len(TOKENIZER.encode(piece, add_special_tokens=False)) for piece in done.pieces]
    unit = [1] * len(sizes) if done.unit == "words" else sizes
    spent = sum(unit[i] for i in done.kept) / sum(unit)
    assert spent == pytest.approx(keep, rel=0.02) or keep - 0.02 < spent <= keep  # a last word may not fit
    assert list(done.kept) == sorted(set(done.kept)) and is_part(done.text, TEXT) and done.original == TEXT
    assert done.asked == keep and done.tokens_out / done.tokens_in == done.achieved


@pytest.mark.parametrize("method", ALL)
def test_what_is_protected_or_forced_stays(method):
    made = method(keep=0.5, force="Velden", digits=True, protect="old sailor")
    done = laconic.shorten(TEXT, made, question=QUESTION, protect=["red!", "salt, and"])
    for string in ("Velden", "1873", "4815263", "old sailor", "red!", "salt, and"):
        assert done.text.count(string) == TEXT.count(string)


@pytest.mark.parametrize("method", ALL)
def test_a_few_words(method):
    for text in ("x", "one two", "  three  "):
        done = laconic.shorten(text, method(keep=0.4), question="?")
        assert done.kept and is_part(done.text, text)


def test_a_budget_in_tokens_is_of_the_reader():
    done = laconic.shorten(TEXT, laconic.TruncateText(tokens=50), tokenizer=TOKENIZER)
    assert done.unit == "tokens" and 45 < done.tokens_out <= 50
    with pytest.raises(ValueError, match="bytes=9"):
        laconic.TruncateText(bytes=9)


def test_figures_of_both_tokenizers():
    class Letters:
        is_fast = True

        def encode(self, text, **options):
            return list(map(ord, text))

    done = laconic.shorten(TEXT, laconic.LLMLingua(keep=0.3, scorer=scorer()), tokenizer=Letters())
    assert (done.tokens_in, done.tokens_out) == (len(TEXT), len(done.text))
    assert done.scorer_tokens == tuple(len(TOKENIZER.encode(x, add_special_tokens=False)) for x in (TEXT, done.text))
    assert done.scorer == "tiny" and done.flops > 0 and done.seconds > 0


def test_documents_are_joined_by_blank_lines():
    done = laconic.shorten(["One two.", "Three."], laconic.TruncateText(keep=1.0))
    assert done.text == "One two.\n\nThree."


def test_documents_that_changed_places_are_set_apart():
    assert joined(["a", "b", "c", "d"], [2, 3, 0, 1]) == "cd\n\nab" and joined(["a", "b"], [1]) == "b"


@dataclass(kw_only=True)
class Documents(laconic.PromptMethod):
    """Shows what it is given."""

    def __str__(self):
        return "documents"

    def select(self, source):
        self.seen = source
        return range(1)


def test_a_method_sees_which_pieces_are_of_which_document():
    method = Documents(keep=0.5)
    laconic.shorten(["One two.", "Three.", "Four five six."], method, question="Why?", protect="Three")
    assert [list(x) for x in method.seen.documents] == [[0, 1], [2], [3, 4, 5]]
    assert method.seen.forced == {2} and method.seen.budget == 3 and method.seen.question == "Why?"


def test_tagged_parts_have_their_own_share():
    text = "<x, compress=False>Keep all of this.</x> one two three four <x, rate=0.2>a b c d e f g h i j</x>\n"
    done = laconic.shorten(text, laconic.TruncateText(keep=0.5, tags="x"))
    assert done.text == "Keep all of this. one two a b\n"
    assert done.original == "Keep all of this. one two three four a b c d e f g h i j\n"
    with pytest.raises(PromptError, match="go with one text"):
        laconic.shorten([text, text], laconic.TruncateText(keep=0.5, tags="x"))
    plain = laconic.shorten(text, laconic.TruncateText(keep=1.0))
    assert plain.text == text  # without the option, angle brackets are text


def test_protected_strings_are_found_across_tagged_parts():
    done = laconic.shorten("a b <x, rate=0.5>c d</x> e f", laconic.TruncateText(keep=0.4, tags="x"), protect=["d", "f"])
    assert "d" in done.text and done.text.endswith("f")


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"text": " \n"}, PromptError, "nothing to shorten"),
        ({"text": []}, PromptError, "nothing to shorten"),
        ({"text": "a \ud800"}, PromptError, "lone surrogate"),
        ({"method": "bm25"}, PromptError, "bm25 needs the question"),
        ({"method": "snapkv"}, PromptError, "does not shorten text"),
        ({"protect": "nowhere"}, ProtectError, "not in the text"),
        ({"method": "truncate_text:keep=1.5"}, BudgetError, "keep=1.5"),
        ({"method": "truncate_text:keep=0.1,digits=true,force=e"}, BudgetError, "tokens are protected or forced, but"),
    ],
)
def test_bad_input(given, error, message):
    given = {"text": TEXT, "method": "truncate_text:keep=0.5"} | given
    with pytest.raises(error, match=message):
        laconic.shorten(given.pop("text"), given.pop("method"), **given)
