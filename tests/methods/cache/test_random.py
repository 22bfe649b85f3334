"""Random: reproducible by seed; batches, chunks and padding draw what single runs draw; uniform."""

import torch
from helpers.reference import chosen, left_padding, observe

from laconic import Random


def test_reproducible_by_seed_and_different_by_layer_and_head():
    seen = observe(n=60, targets=[20, 20])
    assert torch.equal(Random(seed=3).score(seen), Random(seed=3).score(seen))
    assert not torch.equal(Random(seed=3).score(seen), Random(seed=4).score(seen))
    assert not torch.equal(Random(seed=3).score(seen), Random(seed=3).score(observe(n=60, layer=1)))
    assert chosen(Random().select(seen), 0, 0) != chosen(Random().select(seen), 0, 1)


def test_content_does_not_matter():
    assert torch.equal(Random().score(observe(seed=0)), Random().score(observe(seed=1)))


def test_a_draw_belongs_to_the_token_whatever_the_length_and_the_padding():
    long, short = Random().score(observe(n=200)), Random().score(observe(n=23))
    assert torch.equal(long[..., :23], short)
    padded = Random().score(observe(n=23, valid=left_padding(23, 6, 0)))
    assert torch.equal(padded[0, :, 6:], short[0, :, :17]) and torch.equal(padded[1], short[1])


def test_every_place_is_equally_likely():
    hits = torch.zeros(20)
    for seed in range(400):
        selection = Random(seed=seed).select(observe(b=1, n=20, targets=[5]))
        for h in range(2):
            hits[chosen(selection, 0, h)] += 1
    assert hits.sum() == 400 * 2 * 5
    assert abs(hits / 200 - 1).max() < 0.25  # mean 200, standard deviation 12
