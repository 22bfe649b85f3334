"""The inside algorithm against every tree, and grammars that are fitted."""

import itertools

import numpy as np
import pytest
import torch

from laconic.methods.lens.visual_language_statistics import coding
from laconic.methods.lens.visual_language_statistics.grammar import Grammar, _logsumexp, fit, perplexity


def grammar(inner=2, leaves=2, words=3, seed=0):
    torch.manual_seed(seed)
    return Grammar(inner, leaves, words).double()


def slow_probability(g, sentence):
    """The sum over all trees, by recursion over spans and rules."""
    root, rules, words = (p.softmax(-1).tolist() for p in (g.root, g.rules, g.emissions))
    both = g.inner + g.leaves

    def span(symbol, i, j):
        if symbol >= g.inner:
            return words[symbol - g.inner][sentence[i]] if j == i + 1 else 0.0
        return sum(
            rules[symbol][b * both + c] * span(b, i, k) * span(c, k, j)
            for k in range(i + 1, j)
            for b in range(both)
            for c in range(both)
        )

    return sum(root[a] * span(a, 0, len(sentence)) for a in range(g.inner))


@pytest.mark.parametrize("length", [2, 3, 4])
def test_5_inside_is_the_sum_over_all_trees(length):
    g = grammar()
    sentences = torch.randint(3, (2, length), generator=torch.Generator().manual_seed(length))
    slow = [slow_probability(g, s) for s in sentences.tolist()]
    torch.testing.assert_close(g(sentences).exp(), torch.tensor(slow, dtype=torch.float64))


def test_5_all_strings_of_a_finite_grammar_sum_to_one():
    """One non-terminal becomes two pre-terminals, the other a pre-terminal and the first: lengths 2 and 3."""
    g = grammar()
    with torch.no_grad():
        g.rules.fill_(-torch.inf)
        g.rules.view(2, 4, 4)[0, 2:, 2:] = torch.randn(2, 2).double()
        g.rules.view(2, 4, 4)[1, 2:, 0] = torch.randn(2).double()
        total = sum(float(g(torch.tensor(list(itertools.product(range(3), repeat=n)))).exp().sum()) for n in (2, 3, 4))
    assert total == pytest.approx(1)


def test_5_gradients_are_finite_differences():
    g = grammar()
    sentences = torch.tensor([[0, 1, 2], [2, 2, 0]])
    names, values = zip(*((n, p.detach().clone().requires_grad_(True)) for n, p in g.named_parameters()), strict=True)

    def inside(*given):
        return torch.func.functional_call(g, dict(zip(names, given, strict=True)), (sentences,))

    assert torch.autograd.gradcheck(inside, values)


def test_a_sum_of_nothing_is_nothing_and_has_no_gradient():
    x = torch.tensor([[-torch.inf, -torch.inf], [0.0, 1.0]], requires_grad=True)
    found = _logsumexp(x, 1)
    assert found[0] == -torch.inf and float(found[1].detach()) == pytest.approx(1.3132617)
    found[1].backward()
    assert torch.isfinite(x.grad).all()


def mirrored(n, seed):
    """Palindromes of four words and their marks, length 6: the last tokens are known from the first alone."""
    rng = np.random.default_rng(seed)
    half = rng.integers(0, 3, (n, 3))
    return np.concatenate([half, half[:, ::-1] + 3], 1)


def field(n, seed):
    """Lines of a Markov random field: each token is the one to its left, or another one."""
    rng = np.random.default_rng(seed)
    made = rng.integers(0, 6, (n, 6))
    for i in range(1, 6):
        stay = rng.random(n) < 0.8
        made[stay, i] = made[stay, i - 1]
    return made


@pytest.mark.slow
def test_6_a_grammar_beats_bigrams_where_there_is_one_and_not_where_there_is_none():
    scores = {}
    for name, corpus in (("nested", mirrored), ("field", field)):
        fitted, judged = corpus(300, 0), corpus(300, 1)
        best = min(
            (fit(torch.from_numpy(fitted), 6, 12, 6, steps=300, seed=s) for s in range(3)),
            key=lambda g: perplexity(g, torch.from_numpy(fitted)),
        )
        bigram = 2 ** coding.NGrams(list(fitted), 2, 6).bits(list(judged))
        scores[name] = perplexity(best, torch.from_numpy(judged)) / bigram
    assert scores["nested"] < 0.95 and scores["field"] > 0.98
