"""`llmlingua` against its definition, with the compressed prefix read from scratch for every window."""

import pytest
from helpers.text_tools import TEXT, scorer, slow_surprise, source_of

import laconic
from laconic.shortening.pieces import tokens
from laconic.shortening.source import Source


def slow(source, window, numbers=None, share=None):
    """Window by window: surprise after what was kept; the highest stay, as many as bring the sum to what is due."""
    numbers = list(range(len(source.pieces))) if numbers is None else numbers
    share = source.share if share is None else share
    kept, due = [], 0.0
    for start in range(0, len(numbers), window):
        part = numbers[start : start + window]
        before = [token for i in kept for token in source.pieces.ids[i]]
        scores = slow_surprise([source.pieces.ids[i][0] for i in part], before)
        due += share * len(part)
        best = sorted(range(len(part)), key=lambda i: -scores[i])[: round(due) - len(kept)]
        kept += [part[i] for i in sorted(best)]
    return kept


@pytest.mark.parametrize("window", [50, 200])
def test_kept_tokens_are_those_of_the_slow_way(window):
    source = source_of(TEXT.replace("ü", "u"), 0.3)  # every piece one token
    found = laconic.LLMLingua(scorer=scorer(), window=window).select(source)
    assert found[0] == 0  # nothing is known of the first token
    assert found == slow(source, window)


def documents(texts):
    one = scorer()
    pieces = tokens("".join(texts), one.tokenizer)
    at, places = 0, []
    for text in texts:
        places.append(pieces.within(at, at + len(text)))
        at += len(text)
    return Source(pieces, tuple(places), "", round(0.2 * sum(pieces.sizes)), frozenset(), one)


TEXTS = [TEXT[:300], "zzzz qqqq " * 30, TEXT[300:600], "the the the the " * 20]


def test_of_several_documents_the_least_predictable_stay():
    source = documents(TEXTS)
    means = []
    for part in source.documents:
        scores = slow_surprise([token for i in part for token in source.pieces.ids[i]])
        means.append(sum(scores[1:]) / len(scores[1:]))
    limit, total, stay = source.budget + 30, 0, []
    for number in sorted(range(4), key=lambda i: -means[i]):
        if total > limit:
            break
        stay.append(number)
        total += source.pieces.size(source.documents[number])
    assert 0 < len(stay) < 4
    found = laconic.LLMLingua(scorer=scorer(), extra=30).select(source)
    assert {n for n in range(4) for i in found if i in source.documents[n]} <= set(stay)
    numbers = [i for n in sorted(stay) for i in source.documents[n]]
    assert found == slow(source, 200, numbers, source.budget / source.pieces.size(numbers))


def test_forced_pieces_of_a_dropped_document_stay():
    source = documents(TEXTS)
    forced = frozenset([source.documents[3][5], source.documents[1][5], source.documents[0][5], source.documents[2][5]])
    found = laconic.LLMLingua(scorer=scorer(), extra=0).select(Source(**vars(source) | {"forced": forced}))
    assert forced <= set(found)


def test_sentences_go_before_tokens():
    source = source_of(TEXT, 0.2)
    found = laconic.LLMLingua(scorer=scorer(), sentence_filter=True).select(source)
    touched = {i for i, (a, b) in enumerate(sentence_places(source)) if any(a <= j < b for j in found)}
    assert len(touched) < len(sentence_places(source))
    assert source.pieces.size(found) == pytest.approx(source.budget, rel=0.02)


def sentence_places(source):
    from laconic.shortening.pieces import sentences

    parts = [source.pieces.within(*span) for span in sentences(source.pieces.text)]
    return [(part.start, part.stop) for part in parts if part]


def test_short_texts_are_compressed_too():
    done = laconic.shorten("The harbour of Velden was built in 1873.", laconic.LLMLingua(keep=0.5, scorer=scorer()))
    assert done.tokens_out < done.tokens_in


@pytest.mark.parametrize("given", [{"window": 0}, {"extra": -1}, {"quantile": "all"}])
def test_bad_parameters(given):
    ((name, _),) = given.items()
    with pytest.raises(ValueError, match=f"llmlingua: {name}="):
        laconic.LLMLingua(**given)
