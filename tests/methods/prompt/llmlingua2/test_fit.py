"""Training of LLMLingua-2: labels are what a teacher keeps, and a symbol that matters is learned."""

import random

import pytest
import torch
from helpers.bench_tools import tiny
from helpers.text_tools import TEXT

import laconic
from laconic.fit import Trainer
from laconic.methods.prompt.llmlingua2.fit import LLMLingua2Fit, drawn, kept_at
from laconic.shortening.pieces import tokens


def fit(**settings):
    model, tokenizer = tiny()
    made = LLMLingua2Fit(**{"texts": 4, "tokens": 96, "width": 16, "heads": 2, "layers": 1, "steps": 4} | settings)
    made.build(model, tokenizer)
    return made, tokenizer


def test_facts_are_labelled_where_they_stand():
    made, tokenizer = fit(teacher="facts")
    seen = 0
    for number in range(6):
        ids, labels = made.labelled(number)
        text, spans = drawn(random.Random(f"0-{number}"), tokenizer, 96)
        said = tokenizer.decode(ids[labels == 1])
        for start, stop in spans:
            assert text[start:stop] in said
        seen += len(spans)
        assert (labels == -1).sum() == 96 - min(96, len(tokenizer.encode(text, add_special_tokens=False)))
        assert set(labels.tolist()) <= {-1.0, 0.0, 1.0} and (bool(spans) or not (labels == 1).any())
    assert 0 < seen < 24


def test_a_label_is_the_share_of_the_rates_at_which_the_teacher_keeps_a_token():
    made, _ = fit(teacher="truncate_text", rates=(0.25, 0.5))
    _, labels = made.labelled(0)
    known = labels[labels >= 0]
    assert (known.diff() <= 0).all() and known[0] == 1 and known[-1] == 0  # the beginning stays
    assert float((known == 1).float().mean()) == pytest.approx(0.25, abs=0.06)
    assert float((known > 0).float().mean()) == pytest.approx(0.5, abs=0.06)


def test_a_teacher_that_scores_uses_the_model_that_is_fitted():
    made, _ = fit(teacher="llmlingua", rates=(0.5,))
    _, labels = made.labelled(1)
    assert float(labels[labels >= 0].mean()) == pytest.approx(0.5, abs=0.06)


def test_kept_characters_become_kept_tokens():
    _, tokenizer = tiny()
    done = laconic.shorten(TEXT, laconic.RandomText(keep=0.4))
    stops = tokens(TEXT, tokenizer).stops
    kept, at, slow = set(done.kept), 0, []
    for number, piece in enumerate(done.pieces):
        slow += [number in kept] * len(piece)
        at += len(piece)
    assert kept_at(done, stops) == [slow[stop - 1] for stop in stops]


def test_a_training_is_resumed_with_the_labels_that_it_began_with(tmp_path, monkeypatch):
    model, tokenizer = tiny()

    def run(folder, steps, resume=False):
        settings = {"texts": 4, "tokens": 96, "width": 16, "heads": 2, "layers": 1, "save_every": 2}
        return Trainer(LLMLingua2Fit(teacher="facts", steps=steps, warmup=0.5, **settings), model, tokenizer, folder).run(
            resume
        )

    monkeypatch.setattr(LLMLingua2Fit, "rate", lambda self, step: 1.0)
    whole = run(tmp_path / "whole", 4)
    run(tmp_path / "parts", 2)
    real = LLMLingua2Fit.labelled

    def unseen(self, number):
        assert number >= 4, "the texts of the training are not labelled again"
        return real(self, number)

    monkeypatch.setattr(LLMLingua2Fit, "labelled", unseen)
    again = run(tmp_path / "parts", 4, resume=True)
    assert whole.data == again.data
    assert all(torch.equal(again.tensors[name], x) for name, x in whole.tensors.items())


@pytest.mark.slow
def test_4_what_matters_is_learned_and_kept(tmp_path):
    """The card's toy: of made-up facts among unseen prose far more stays than of the rest, and than chance keeps."""
    model, tokenizer = tiny()
    settings = {"teacher": "facts", "texts": 60, "tokens": 192, "width": 32, "heads": 2, "layers": 1, "lr": 3e-3}
    fit = LLMLingua2Fit(steps=150, batch_size=4, checked=4, **settings)
    Trainer(fit, model, tokenizer).run().save(tmp_path / "a.safetensors")
    method = laconic.LLMLingua2(keep=0.4, artifact=str(tmp_path / "a.safetensors"), scorer=laconic.Scorer(model, tokenizer))
    kept, total = {"own": 0, "random": 0}, 0
    for number in range(12):
        text, spans = drawn(random.Random(f"unseen-{number}"), tokenizer, 192)
        total += sum(b - a for a, b in spans)
        for name, one in (("own", method), ("random", laconic.RandomText(keep=0.4))):
            done, at = laconic.shorten(text, one, tokenizer=tokenizer), 0
            stay = set(done.kept)
            for i, piece in enumerate(done.pieces):
                if i in stay:
                    kept[name] += sum(any(a <= c < b for a, b in spans) for c in range(at, at + len(piece)))
                at += len(piece)
    assert total > 500
    assert kept["own"] > 1.5 * kept["random"]


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"tokens": 513}, "tokens=513: the encoder sees at most 512"),
        ({"heads": 5}, "width=64 must be a multiple of heads=5"),
        ({"rates": (0.5, 1.0)}, "rates=1.0 keeps the whole text"),
        ({"teacher": "bm25"}, "teacher='bm25': name another method that shortens text and needs no question"),
        ({"teacher": "snapkv"}, "teacher='snapkv'"),
        ({"teacher": "llmlingua2"}, "teacher='llmlingua2'"),
        ({"texts": 0}, "texts=0 must be positive"),
    ],
)
def test_bad_settings(settings, match):
    with pytest.raises(ValueError, match=match):
        LLMLingua2Fit(**settings)


def test_the_artifact_describes_the_network():
    made, _ = fit(teacher="facts", checked=3)
    made.network.eval()
    told = made.facts()
    right, total, ones = 0, 0, 0
    for number in (4, 5, 6):  # texts after those of the training
        ids, labels = made.labelled(number)
        with torch.no_grad():
            logits = made.network(made.model.get_input_embeddings()(ids[None]))[0]
        for logit, label in zip(logits.tolist(), labels.tolist(), strict=True):
            if label >= 0:
                right, total, ones = right + ((logit > 0) == (label >= 0.5)), total + 1, ones + (label >= 0.5)
    want = [round(right / total, 4), round(max(ones, total - ones) / total, 4)]
    assert told.pop("agreement") == pytest.approx(want, abs=1e-4)
    assert told == {"embedding": 32, "width": 16, "layers": 1, "heads": 2}
    made.prepare(None, False)
    ids, labels = made.batch(3)
    assert ids.shape == labels.shape == (8, ids.shape[1]) and 72 <= ids.shape[1] <= 96
    assert torch.isfinite(made.loss((ids, labels))) and "agrees with the teacher" in made.progress()
    assert isinstance(made.network, torch.nn.Module)
