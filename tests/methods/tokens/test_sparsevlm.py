"""SparseVLM: raters, scores, groups of dropped tokens, numbers that stay."""

import math

import pytest
import torch
from helpers.slow_attention import attention, numbers, top
from helpers.slow_peaks import slow_peaks
from helpers.vision_exact import embedded, generate, run
from helpers.vision_tools import inputs

from laconic import compress
from laconic.methods.tokens.sparsevlm import PUBLISHED, SparseVLM, published, raters, with_recycled


def slow_raters(visual, text):
    m = [[float(v @ t) for t in text] for v in visual]
    for row in m:
        peak = max(row)
        row[:] = [math.exp(x - peak) for x in row]
        total = sum(row)
        row[:] = [x / total for x in row]
    rel = [sum(row[j] for row in m) / len(m) for j in range(len(text))]
    return [j for j, r in enumerate(rel) if r > sum(rel) / len(rel)]


def slow_change(model, given, layers, counts, recycle=True, neighbours=5, paper_code=False):
    """Item 2 of the card for `vision_exact.run`."""
    hidden, visual = embedded(model, given)
    last = numbers(visual)[-1]
    words = slow_raters(hidden[0, visual], hidden[0, last + 1 :])
    scores = {}

    def before(i, hidden, visual, positions):
        if i - 1 in layers:
            at, score = numbers(visual), scores.pop(0)
            best = top(score, counts[layers.index(i - 1)])
            stays = [at[n] for n in best]
            rest = [n for n in range(len(at)) if n not in best]
            order, hidden = list(stays), hidden.clone()
            if recycle and rest:
                taken = [rest[n] for n in top([score[n] for n in rest], int(0.3 * len(rest)) + 1)]
                rows = [at[n] for n in taken]
                groups = int(len(rows) / 10) + 1
                centres, group = slow_peaks(hidden[rows], groups, groups if paper_code else neighbours, paper_code)
                mixed = [
                    torch.stack([hidden[r] for r, g in zip(rows, group, strict=True) if g == c]).mean(0)
                    for c in range(len(centres))
                ]
                for c, centre in enumerate(centres):
                    hidden[rows[centre]] = mixed[c]
                    order.append(rows[centre])
            text = [n for n in range(len(hidden)) if not visual[n]]
            keep = torch.tensor([n for n in text if n < at[0]] + order + [n for n in text if n > at[-1]])
            hidden, visual, positions = hidden[keep], visual[keep], positions[: len(keep)] if paper_code else positions[keep]
        if i in layers:
            a = attention(model, i, hidden, positions)
            first = numbers(visual)[-1] + 1
            scores[0] = [
                sum(float(a[h, first + w, j]) for h in range(len(a)) for w in words) / (len(a) * len(words))
                for j in numbers(visual)
            ]
        return hidden, visual, positions

    return before


@pytest.mark.parametrize(
    ("options", "layers", "counts"),
    [
        ({}, (0, 1, 3), (75, 50, 28)),  # 300, 200, 110 of 576
        ({"layers": (1, 4), "counts": (40, 10)}, (1, 4), (40, 10)),
        ({"layers": (2,), "counts": (30,), "recycle": False}, (2,), (30,)),
        ({"layers": (1, 4), "counts": (40, 10), "neighbours": 1, "paper_code": True}, (1, 4), (40, 10)),
    ],
)
def test_equals_layers_run_by_hand(vlm, options, layers, counts):
    """Must show 2 and 8: raters, kept and recycled tokens, their places and positions, cache lengths, decoding."""
    given = inputs([(3, 9)])
    with compress(vlm, SparseVLM(**options)) as session:
        ours = generate(vlm, given)[0]
    recycle, paper_code = options.get("recycle", True), options.get("paper_code", False)
    change = slow_change(vlm, given, layers, counts, recycle, paper_code=paper_code)
    logits, _, lengths = run(vlm, given, change)
    torch.testing.assert_close(ours, logits, rtol=1e-4, atol=1e-4)
    assert [x.stored - 3 for x in session.cache.compressed()] == lengths
    left = with_recycled(144, counts, options.get("recycle", True))
    assert [event.after - 12 for event in session.trace.events] == left


def test_a_padded_batch_equals_single_runs(vlm):
    given = inputs([(3, 9), (8, 2)])
    with compress(vlm, SparseVLM(keep=0.4)):
        both = generate(vlm, given)
    for row in range(2):
        real = given["attention_mask"][row] == 1
        alone = {"input_ids": given["input_ids"][row : row + 1, real], "pixel_values": given["pixel_values"][row : row + 1]}
        with compress(vlm, SparseVLM(keep=0.4)):
            torch.testing.assert_close(generate(vlm, alone)[0], both[row], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("seed", range(4))
def test_raters(seed):
    torch.manual_seed(seed)
    visual, text = torch.randn(20, 6), torch.randn(9, 6)
    assert raters(visual, text).nonzero()[:, 0].tolist() == slow_raters(visual, text)
    assert raters(visual, text[:1]).tolist() == [True]


def test_one_over_the_number_of_raters_equals_explicit_averaging(vlm, passes):
    """Must show 4: with 1 / n_raters at the rater rows of a second attention call, the scores can be had without its matrix:
    they are the derivative of those rows' output with respect to the values (what the backward pass of a flash kernel
    computes)."""
    given = inputs([(3, 9)])
    with compress(vlm, SparseVLM(layers=(2,), counts=(30,))) as session, torch.no_grad():
        vlm(**given)
    ((q, k),) = passes[2]
    hidden, visual = embedded(vlm, given)
    words = torch.tensor(slow_raters(hidden[0, visual], hidden[0, 147:])) + 147
    explicit = (
        (q @ k.repeat_interleave(2, 1).mT * q.shape[-1] ** -0.5)
        .masked_fill(torch.ones(156, 156, dtype=torch.bool).triu(1), float("-inf"))
        .softmax(-1)[0, :, words]
        .mean((0, 1))
    )
    value = torch.zeros(1, 4, 156, 1, requires_grad=True)
    out = torch.nn.functional.scaled_dot_product_attention(q, k.repeat_interleave(2, 1), value, is_causal=True)
    weight = torch.zeros(1, 4, 156, 1)
    weight[:, :, words] = 1 / len(words)
    (trick,) = torch.autograd.grad(out, value, weight)
    torch.testing.assert_close(trick[0, :, :, 0].mean(0), explicit, atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(session.trace.events[0].scores[0, 3:147], explicit[3:147], atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("method", [SparseVLM(keep=1.0), SparseVLM(counts=(144, 144, 144))])
def test_nothing_to_drop_changes_nothing(vlm, method):
    """Must show 1."""
    given = inputs([(3, 9), (8, 2)])
    plain = generate(vlm, given)
    with compress(vlm, method):
        torch.testing.assert_close(generate(vlm, given), plain, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("keep", [0.9, 0.5, 0.333, 0.2, 0.15])
def test_budgets(vlm, keep):
    with compress(vlm, SparseVLM(keep=keep)) as session, torch.no_grad():
        vlm(**inputs([(3, 9)], images=2))
    assert keep - 1 / 144 < session.stats.achieved <= keep + 1e-6


def test_published_numbers_and_what_lies_between():
    for mean, counts in PUBLISHED.items():
        assert [n * 576 for n in published(mean / 576)] == pytest.approx(list(counts))
    between = [n * 576 for n in published(math.sqrt(64 * 128) / 576)]
    assert between == pytest.approx([math.sqrt(66 * 303), math.sqrt(30 * 110), math.sqrt(17 * 36)])
    assert published(1.0) == pytest.approx([1, 1, 1])
    assert all(low < high for low, high in zip(published(32 / 576), published(64 / 576), strict=True))
    assert list(SparseVLM().observes(32)) == [2, 6, 15] and list(SparseVLM().cuts(32)) == [0, 3, 7, 16]


def test_recycled_tokens_stay_with_their_image(vlm):
    """Two images: each one's groups come after its own kept tokens, in the order of the prompt."""
    given = inputs([(3, 9)], images=2)
    text = torch.tensor([11, 12])
    ids = given["input_ids"][0]
    given["input_ids"] = torch.cat([ids[:147], text, ids[147:]])[None]
    given["attention_mask"] = torch.ones_like(given["input_ids"])
    with compress(vlm, SparseVLM(keep=0.3)) as session, torch.no_grad():
        vlm(**given)
    for event in session.trace.events:
        image = [0 if n < 147 else 1 for n in event.stream[0].tolist() if 3 <= n < 147 or 149 <= n < 293]
        assert image == sorted(image) and len(set(image)) == 2
        assert [n for n in event.stream[0].tolist() if n in (147, 148)] == [147, 148]


def test_wrong_uses_are_refused(vlm):
    given = inputs([(3, 9)])
    given = {name: x[:, :147] if name != "pixel_values" else x for name, x in given.items()}
    with pytest.raises(ValueError, match="no text follows"), compress(vlm, SparseVLM(keep=0.4)), torch.no_grad():
        vlm(**given)
    with pytest.raises(ValueError, match="one count for each layer"):
        SparseVLM(layers=(1, 2))
    with pytest.raises(ValueError, match="must ascend"):
        SparseVLM(layers=(5, 2, 7))
    with pytest.raises(ValueError, match="neighbours=0"):
        SparseVLM(neighbours=0)
