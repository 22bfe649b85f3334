"""What is trained on: by seed, training documents only."""

import random

import pytest
import torch

import laconic
from laconic.fit.text import IGNORED, ChatSource, FileSource, TestbedSource, copies, labelled
from laconic.tasks.text import corpus
from laconic.tasks.text.mixture import Example


@pytest.fixture(scope="module")
def tokenizer():
    return laconic.load("testbed/lm")[1]


@pytest.fixture(scope="module")
def source(tokenizer):
    return TestbedSource(tokenizer)


def test_batches_follow_seed_and_step(source):
    one, again = source.batch(3, 5, 2, 256), source.batch(3, 5, 2, 256)
    assert torch.equal(one[0], again[0]) and torch.equal(one[1], again[1])
    assert not torch.equal(one[0], source.batch(3, 6, 2, 256)[0]) and not torch.equal(one[0], source.batch(4, 5, 2, 256)[0])
    assert one[0].shape == one[1].shape == (2, 256)


def test_labels_are_the_tokens_or_nothing(source):
    for step in range(12):
        ids, labels = source.batch(0, step, 2, 512)
        assert bool(((labels == ids) | (labels == IGNORED)).all())
        assert bool((labels != IGNORED).any())


def test_chats_use_seeds_of_training_only(source, monkeypatch):
    seeds = []
    original = source.mixture.task_chat
    monkeypatch.setattr(source.mixture, "task_chat", lambda seed, tokens: seeds.append(seed) or original(seed, tokens))
    for step in range(30):
        source.batch(0, step, 1, 128)
    assert 5 < len(seeds) < 25 and max(seeds) < 1_000_000


def test_prose_is_that_of_training(source, tokenizer):
    training = "\n".join(corpus.lines("prose"))
    held = [line for line in corpus.lines("prose", held_out=True) if line not in training]
    text = tokenizer.decode(source.mixture.prose)
    assert len(held) > 100 and not any(line in text for line in held)


def test_copies_supervise_repeats_behind_their_first_tokens():
    prose = list(range(10, 5000))
    example = copies(random.Random(0), prose, 600)
    assert len(example.ids) == 600 and 50 < len(example.targets) < 600
    for at, ((token,), _, _) in example.targets.items():
        before = tuple(example.ids[at - 4 : at])  # four tokens foretell it
        assert example.ids[at] == token
        assert any(tuple(example.ids[i : i + 4]) == before and example.ids[i + 4] == token for i in range(at - 4))


def test_examples_are_padded_on_the_right():
    ids, labels = labelled([Example([5, 6, 7], {2: ((7,), 1.0, 0)}), Example([8], {})], 4)
    assert ids.tolist() == [[5, 6, 7, 0], [8, 0, 0, 0]]
    assert labels.tolist() == [[IGNORED, IGNORED, 7, IGNORED], [IGNORED] * 4]


def test_chats_alone_have_a_loss_on_answers_after_a_prompt(tokenizer):
    source = ChatSource(tokenizer)
    ids, labels = source.batch(3, 7, 4, 128)
    assert ids.shape == labels.shape == (4, 128) and torch.equal(ids, source.batch(3, 7, 4, 128)[0])
    assert not torch.equal(ids, source.batch(3, 8, 4, 128)[0])
    asked = labels != IGNORED
    assert bool(asked.any(1).all()) and int(asked.int().argmax(1).min()) > 16
    assert torch.equal(labels[asked], ids[asked])


def test_a_text_file(tokenizer, tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("The code for falcon is 4815263.\n" * 40, encoding="utf-8")
    source = FileSource(tokenizer, path)
    ids, labels = source.batch(0, 0, 3, 32)
    assert ids.shape == (3, 32) and torch.equal(ids, labels) and ids is not labels
    with pytest.raises(ValueError, match="needs more than tokens=4096"):
        source.batch(0, 0, 1, 4096)
