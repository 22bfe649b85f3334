"""LLMLingua-2 at work: chunks, words, the published threshold, what always stays."""

import random
from dataclasses import replace

import pytest
import torch
from helpers.text_tools import TEXT, scorer

import laconic
from laconic.methods.prompt.llmlingua2.method import LLMLingua2, chunks, likeliest, owned
from laconic.methods.prompt.llmlingua2.network import Classifier, TokenClassifier
from laconic.shortening.forced import forced
from laconic.shortening.pieces import tokens, words
from laconic.shortening.source import Source
from laconic.tasks.text import corpus
from laconic.tasks.text.haystack import haystack

LONG = TEXT.replace("ü", "u") * 4


@pytest.fixture(scope="module")
def classifier():
    torch.manual_seed(0)
    network = TokenClassifier(32, 16, 2, 2).eval()
    with torch.no_grad():
        network.leave.weight.mul_(20)
    return Classifier(scorer(), network)


def source_of(text, keep, classifier, documents=None, force=()):
    pieces = words(text, classifier.tokenizer)
    places = documents or (range(len(pieces)),)
    stay = forced(pieces, (), force, False)
    return Source(pieces, places, "", round(keep * sum(pieces.sizes)), stay, classifier)


def slow_chances(source):
    """Mean probability of each word: a network pass for every chunk, one token after another."""
    pieces, own = source.pieces, tokens(source.pieces.text, source.scorer.tokenizer)
    ids, split = owned(pieces, own), list(pieces)
    found, at = [], 0
    while at < len(split):
        stop, total = at, 0
        while stop < len(split) and total + len(ids[stop]) <= 512:
            total += len(ids[stop])
            stop += 1
        if stop < len(split):
            while not (split[stop - 1].endswith(".") or split[stop].startswith("\n")):
                stop -= 1
        flat = [token for i in range(at, stop) for token in ids[i]]
        table = source.scorer.scorer.model.get_input_embeddings()
        with torch.no_grad():
            chance = source.scorer.network(table(torch.tensor([flat])))[0].sigmoid().tolist()
        place = 0
        for i in range(at, stop):
            found.append(sum(chance[place : place + len(ids[i])]) / len(ids[i]))
            place += len(ids[i])
        at = stop
    return found


def test_4_chunks_are_the_whole_text_and_end_with_sentences(classifier):
    source = source_of(LONG, 0.5, classifier)
    lengths = [len(x) for x in owned(source.pieces, tokens(LONG, classifier.tokenizer))]
    found, split = chunks(source.pieces, lengths, range(len(source.pieces))), list(source.pieces)
    assert [i for part in found for i in part] == list(range(len(split))) and len(found) > 2
    for part in found[:-1]:
        assert sum(lengths[i] for i in part) <= 512
        assert split[part.stop - 1].endswith(".") or split[part.stop].startswith("\n")


def test_a_chunk_without_a_sentence_is_cut_at_a_word_and_a_longer_word_is_a_chunk(classifier):
    text = "salt " * 600 + "x1" * 700 + " end"
    pieces = words(text, classifier.tokenizer)
    lengths = [len(x) for x in owned(pieces, tokens(text, classifier.tokenizer))]
    found = chunks(pieces, lengths, range(len(pieces)))
    assert [i for part in found for i in part] == list(range(len(pieces)))
    assert range(600, 601) in found and max(lengths) > 512
    assert all(sum(lengths[i] for i in part) <= 512 for part in found if len(part) > 1)
    assert LLMLingua2(keep=0.3).select(source_of(text, 0.3, classifier))


@pytest.mark.parametrize("keep", [0.6, 0.3])
def test_each_chunk_keeps_what_the_published_threshold_keeps(classifier, keep):
    """Percentile of the words' probabilities, each as often as it has tokens; what is over it stays. It errs towards too
    little by up to a hundredth and a word, so what it keeps is part of what is kept here."""
    source = source_of(LONG, keep, classifier)
    chance, sizes = slow_chances(source), source.pieces.sizes
    lengths = [len(x) for x in owned(source.pieces, tokens(LONG, classifier.tokenizer))]
    kept = set(LLMLingua2(keep=keep).select(source))
    for part in chunks(source.pieces, lengths, range(len(source.pieces))):
        repeated = sorted(chance[i] for i in part for _ in range(sizes[i]))
        place = (len(repeated) - 1) * int(100 * (1 - keep) + 1) / 100
        low = int(place)
        threshold = repeated[low] + (place - low) * (repeated[low + 1] - repeated[low])
        published = {i for i in part if chance[i] > threshold}
        own = kept.intersection(part)
        assert published <= own
        assert sum(sizes[i] for i in own - published) <= 0.02 * len(repeated) + 2 * max(sizes[i] for i in part)


def test_words_compete_over_the_whole_text_where_that_is_asked(classifier):
    source = source_of(LONG, 0.3, classifier)
    chance, sizes = slow_chances(source), source.pieces.sizes
    kept = LLMLingua2(keep=0.3, within="text").select(source)
    assert min(chance[i] for i in kept) >= max(chance[i] for i in range(len(sizes)) if i not in set(kept)) - 1e-6
    assert list(kept) != list(LLMLingua2(keep=0.3).select(source))


@pytest.mark.parametrize("keep", [0.5, 0.25, 0.1])
@pytest.mark.parametrize("within", ["chunk", "text"])
def test_1_the_budget_is_met_by_whole_words_in_order(classifier, keep, within):
    source = source_of(LONG, keep, classifier)
    kept = list(LLMLingua2(keep=keep, within=within).select(source))
    assert kept == sorted(set(kept))
    assert source.pieces.size(kept) == pytest.approx(source.budget, abs=max(source.pieces.sizes))


def test_4_forced_words_always_stay_and_count(classifier):
    source = source_of(LONG, 0.3, classifier, force=("salt", "."))
    kept = LLMLingua2(keep=0.3).select(source)
    assert len(source.forced) > 50 and source.forced <= set(kept)
    assert source.pieces.size(kept) == pytest.approx(source.budget, rel=0.02)


def documents_of(texts, classifier):
    pieces = words("".join(texts), classifier.tokenizer)
    places, at = [], 0
    for text in texts:
        places.append(pieces.within(at, at + len(text)))
        at += len(text)
    return tuple(places)


def test_documents_with_low_means_go_first_and_what_is_forced_in_them_stays(classifier):
    texts = [LONG[:700], "the the the the " * 40, LONG[700:1400], "zz qq ww " * 40]
    places = documents_of(texts, classifier)
    source = source_of("".join(texts), 0.2, classifier, places)
    chance = dict(enumerate(slow_chances_by_document(source)))
    means = [sum(chance[i] for i in part) / len(part) for part in places]
    best = sorted(sorted(range(4), key=lambda n: -means[n])[:3])  # (0.2 + 1) / 2 of 4, rounded up
    assert likeliest(places, chance, 0.2) == [places[n] for n in best]
    (dropped,) = set(range(4)) - set(best)
    forced_there = frozenset([places[dropped][3]])
    source = Source(source.pieces, places, "", source.budget, forced_there, classifier)
    kept = LLMLingua2(keep=0.2, documents=True).select(source)
    assert {n for n in range(4) if set(places[n]) & set(kept)} == set(best) | {dropped}
    assert set(places[dropped]) & set(kept) == forced_there
    assert source.pieces.size(kept) == pytest.approx(source.budget, rel=0.03)
    assert {n for n in range(4) if set(places[n]) & set(LLMLingua2(keep=0.2).select(source))} == {0, 1, 2, 3}


def slow_chances_by_document(source):
    """Every document alone: none of these is longer than a chunk."""
    own = owned(source.pieces, tokens(source.pieces.text, source.scorer.tokenizer))
    found = []
    for part in source.documents:
        chance = iter(source.scorer.probabilities([token for i in part for token in own[i]]))
        found += [sum(c) / len(c) for c in ([next(chance) for _ in own[i]] for i in part)]
    return found


def test_the_answering_models_tokens_count(classifier):
    """Pieces are sized by the model that will read, whatever the classifier reads."""

    class Letters:
        is_fast = True

        def __call__(self, text, **_):
            return {"input_ids": [1] * len(text), "offset_mapping": [(i, i + 1) for i in range(len(text))]}

    pieces = LLMLingua2(keep=0.5).split("salt and iron", Letters(), classifier)
    assert pieces.sizes == (4, 4, 5)
    assert (
        LLMLingua2(keep=0.5).split("salt and iron", None, classifier).sizes
        == words("salt and iron", classifier.tokenizer).sizes
    )


def test_an_artifact_is_needed_and_named():
    with pytest.raises(laconic.ArtifactError, match="laconic fit llmlingua2"):
        laconic.shorten(TEXT, LLMLingua2(keep=0.5, scorer=scorer()))


def test_the_shipped_classifier_keeps_what_its_teacher_keeps_more_often_than_chance():
    one = laconic.Scorer(*laconic.load("testbed/lm"))
    lines, common = corpus.lines("prose", held_out=True), {"llmlingua2": 0, "random_text": 0}
    for number in range(3):
        text = "\n".join(haystack(random.Random(number), lines, 200, lambda part: len(one.tokenizer.encode(part))))
        found = {}
        for name in ("llmlingua", *common):
            given = {} if name == "random_text" else {"scorer": one}
            done = laconic.shorten(
                text, replace(laconic.create_method(f"{name}:keep=0.4"), **given), tokenizer=one.tokenizer
            )
            stay, at = set(done.kept), 0
            found[name] = set()
            for i, piece in enumerate(done.pieces):
                found[name] |= set(range(at, at + len(piece))) if i in stay else set()
                at += len(piece)
        for name in common:
            common[name] += len(found[name] & found["llmlingua"])
    assert common["llmlingua2"] > 1.3 * common["random_text"]


def test_1_a_share_of_one_needs_no_classifier():
    assert laconic.shorten(TEXT, LLMLingua2(keep=1.0, scorer=scorer())).text == TEXT


@pytest.mark.parametrize("given", [{"within": "page"}])
def test_bad_parameters(given):
    with pytest.raises(ValueError, match="llmlingua2: within='page'"):
        LLMLingua2(**given)
