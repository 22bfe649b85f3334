"""ApET against loops and numpy; numbers in the docstrings are the lines of what it must show."""

import numpy as np
import pytest
import torch
from helpers.vision_tools import inputs, random_vlm
from helpers.vision_zoo import CASES, SIDE

import laconic
from laconic import BudgetError
from laconic.methods.tokens.apet import ApET, compress, farthest, residuals


def tokens(n=40, width=16, seed=0):
    return torch.randn(n, width, generator=torch.Generator().manual_seed(seed))


def slow_compress(x, count, basis, ridge, blend):
    """The algorithm, steps 2 to 6, with loops; (kept, values, residuals)."""
    x = x.double().numpy()
    s = x[basis]
    gram = s @ s.T + ridge * np.eye(len(s))
    errors = [np.linalg.norm(v - np.linalg.inv(gram) @ (s @ v) @ s) for v in x]
    top = sorted(range(len(x)), key=lambda i: -errors[i])[:count]
    places = min(len(basis), count - 1)
    targets, weak = top[: count - places], top[count - places :]
    new = {t: [x[t]] for t in targets}
    for r in sorted(set(range(len(x))) - set(top)):
        cosines = [x[r] @ x[t] / np.linalg.norm(x[r]) / np.linalg.norm(x[t]) for t in targets]
        new[targets[int(np.argmax(cosines))]].append(x[r])
    values = {t: sum(parts) / len(parts) for t, parts in new.items()}
    values |= {t: blend * s[j] + (1 - blend) * x[t] for j, t in enumerate(weak)}
    kept = sorted(values)
    return kept, np.stack([values[t] for t in kept]), errors, new


@pytest.mark.parametrize("first", [0, 7, 39])
def test_farthest_points_equal_a_greedy_loop(first):
    """4."""
    x = tokens()
    chosen = [first]
    while len(chosen) < 12:
        gaps = [min(float((x[i] - x[j]).square().sum()) for j in chosen) for i in range(len(x))]
        chosen.append(max(range(len(x)), key=lambda i: gaps[i]))
    assert farthest(x, 12, first).tolist() == chosen and len(set(chosen)) == 12


def test_farthest_points_are_different_tokens_even_of_equal_ones():
    assert sorted(farthest(torch.ones(6, 3), 6, 2).tolist()) == list(range(6))


@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_residuals_equal_least_squares(scale):
    """2: the part orthogonal to the span of the basis, 1e-4 relative; none for the basis."""
    x = tokens(60, 32) * scale
    basis = farthest(x, 10, 0)
    solution = np.linalg.lstsq(x[basis].double().numpy().T, x.double().numpy().T, rcond=None)[0]
    expected = np.linalg.norm(x.double().numpy() - (x[basis].double().numpy().T @ solution).T, axis=1)
    error = residuals(x, x[basis], 1e-9 * scale**2)
    rest = torch.ones(60, dtype=torch.bool)
    rest[basis] = False
    torch.testing.assert_close(error[rest], torch.from_numpy(expected[rest.numpy()]).float(), rtol=1e-4, atol=0)
    assert error[basis].max() < 1e-6 * scale


@pytest.mark.parametrize("scale", [1.0, 100.0])
@pytest.mark.parametrize("rank", [1, 4, 10])
def test_tokens_within_the_span_of_few_leave_no_residual(rank, scale):
    """3: also with a singular system."""
    torch.manual_seed(0)
    x = torch.randn(50, rank) @ torch.randn(rank, 64) * scale
    error = residuals(x, x[farthest(x, 10, 0)], 1e-5)
    assert bool(error.isfinite().all()) and error.max() < 1e-4 * x.norm(dim=-1).max()


@pytest.mark.parametrize("count", [11, 12, 20, 35, 39])
@pytest.mark.parametrize("blend", [1.0, 0.5])
def test_compression_equals_the_loops(count, blend):
    """5: exactly K, in the original order."""
    x = tokens()
    basis = farthest(x, 10, 3)
    found = compress(x, count, basis, ridge=1e-5, blend=blend)
    kept, values, errors, _ = slow_compress(x, count, basis.numpy(), 1e-5, blend)
    assert found.kept.tolist() == kept and len(kept) == count
    torch.testing.assert_close(found.values, torch.from_numpy(values).float(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.residuals, torch.tensor(np.array(errors)).float(), rtol=1e-4, atol=1e-4)


def test_the_basis_is_in_the_output():
    """5: its vectors exactly, with blend=1."""
    x = tokens()
    basis = farthest(x, 10, 3)
    found = compress(x, 15, basis)
    for vector in x[basis]:
        assert (found.values == vector).all(-1).sum() == 1


def test_merging_conserves_the_sum():
    """6."""
    x = tokens()
    basis = farthest(x, 10, 3)
    found = compress(x, 18, basis)
    own = found.to == torch.arange(40)
    assert found.kept.tolist() == own.nonzero()[:, 0].tolist()
    weakest = found.kept[found.residuals[found.kept].argsort()[:10]]
    targets = [t for t in found.kept.tolist() if t not in weakest.tolist()]
    weights = [int((found.to == t).sum()) for t in targets]
    total = sum(n * found.values[found.kept.tolist().index(t)] for t, n in zip(targets, weights, strict=True))
    torch.testing.assert_close(total, x[targets].sum(0) + x[~own].sum(0), rtol=1e-4, atol=1e-4)
    assert sum(weights) == len(targets) + int((~own).sum())


@pytest.mark.parametrize("count", [1, 2, 3, 10])
def test_fewer_tokens_than_the_basis_has(count):
    """The published M = 10 never meets K <= M; half of K is the basis then."""
    x = tokens()
    basis = ApET()._basis(x, count)
    assert len(basis) == max(1, count // 2)
    found = compress(x, count, basis)
    assert len(found.kept) == count and bool(found.values.isfinite().all())


def test_protected_tokens_stay_and_too_many_are_an_error():
    x, must = tokens(), torch.zeros(40, dtype=torch.bool)
    must[[1, 2, 3, 30, 31]] = True
    found = compress(x, 12, farthest(x, 10, 3), must=must)
    assert {1, 2, 3, 30, 31} <= set(found.kept.tolist()) and len(found.kept) == 12
    with pytest.raises(BudgetError, match="5 visual tokens are protected"):
        compress(x, 4, farthest(x, 2, 3), must=must)


def test_order_of_tokens_does_not_matter_and_to_fastv_it_does():
    """7: FastV's score, the mean attention of the last token after layer 1, on the same permuted features."""
    model = random_vlm()
    model.set_attn_implementation("eager")
    given = inputs([(3, 9)])
    features = model.model.get_image_features(given["pixel_values"]).pooler_output[0]
    order = torch.randperm(144, generator=torch.Generator().manual_seed(1))

    def ours(x, first):
        return set(compress(x, 36, farthest(x, 10, first)).kept.tolist())

    def fastv(x):
        embeds = model.model.language_model.embed_tokens(given["input_ids"])
        embeds[0, 3:147] = x
        rows = model.model.language_model(inputs_embeds=embeds, output_attentions=True).attentions[1]
        return set(rows[0, :, -1, 3:147].mean(0).topk(36).indices.tolist())

    first = 5
    moved = ours(features[order], int((order == first).nonzero()))
    assert {int(order[i]) for i in moved} == ours(features, first)
    assert {int(order[i]) for i in fastv(features[order])} != fastv(features)


def test_unique_tokens_among_copies_are_kept_and_the_rest_is_reconstructed_best():
    """8: against random tokens and those of the largest norm, at the same K."""
    torch.manual_seed(0)
    background, unique = torch.randn(6, 48) * 3, torch.randn(14, 48)
    x = torch.cat([background[torch.randint(6, (130,))], unique])[torch.randperm(144)]
    special = {int((x == vector).all(1).nonzero()[0]) for vector in unique}
    basis = farthest(x, 10, int((x - x.mean(0)).norm(dim=-1).argmin()))
    found = compress(x, 26, basis)
    kept = found.kept.tolist()
    beside = {i for i in special if any((value == x[i]).all() for value in found.values)}
    assert special <= set(kept) | beside

    def error(vectors):
        solution = np.linalg.lstsq(vectors.double().numpy().T, x.double().numpy().T, rcond=None)[0]
        return float(np.linalg.norm(x.double().numpy().T - vectors.double().numpy().T @ solution))

    assert error(found.values) < 0.5 * error(x[torch.randperm(144)[:26]])
    assert error(found.values) < 0.5 * error(x[x.norm(dim=-1).topk(26).indices])


def run(model, given, **options):
    with laconic.compress(model, ApET(**options)) as session, torch.no_grad():
        logits = model(**given).logits
    return logits[:, -1], session


@pytest.mark.parametrize("name", ["llava", "llava_next", "qwen2_5_vl", "internvl"])
def test_all_tokens_kept_are_the_model(name):
    """1: also where the method runs."""
    case = CASES[name]
    model, given = case.build(), case.inputs([[case.image(0), case.image(1)]])
    plain = model(**given).logits[:, -1]
    for budget in ({"keep": 1.0}, {"tokens": 10**6}):
        logits, session = run(model, given, **budget)
        torch.testing.assert_close(logits, plain, atol=1e-5, rtol=1e-5)
        assert session.stats.visual[2] == session.stats.visual_in


def test_the_decoder_reads_what_the_stages_leave(vlm):
    """Both stages by hand: encoder features through the projector, layers 0 .. 3, hidden states, layers 4 .. 7."""
    given = inputs([(3, 9)])
    logits, session = run(vlm, given, tokens=48)  # 72 and 24
    core, stack = vlm.model, vlm.model.language_model
    seen = core.vision_tower(given["pixel_values"], output_hidden_states=True).hidden_states[-2][0, 1:]
    method = ApET()
    first = compress(seen, 72, method._basis(seen, 72))
    embeds = stack.embed_tokens(given["input_ids"])
    hidden = torch.cat([embeds[:, :3], core.multi_modal_projector(first.values[None]), embeds[:, 147:]], 1)

    def layers(hidden, which):
        n = hidden.shape[1]
        mask = torch.full((n, n), float("-inf")).triu(1)[None, None]
        phases = stack.rotary_emb(hidden, torch.arange(n)[None])
        for layer in which:
            hidden = layer(hidden, attention_mask=mask, position_embeddings=phases)
        return hidden

    hidden = layers(hidden, stack.layers[:4])
    second = compress(hidden[0, 3:75], 24, method._basis(hidden[0, 3:75], 24))
    hidden = layers(torch.cat([hidden[:, :3], second.values[None], hidden[:, 75:]], 1), stack.layers[4:])
    torch.testing.assert_close(logits[0], vlm.lm_head(stack.norm(hidden))[0, -1], rtol=1e-4, atol=1e-4)
    places = session.trace.events[0].stream[0, 3:75] - 3
    assert places.tolist() == first.kept.tolist()
    assert session.trace.events[1].stream[0, 3:27].tolist() == (places[second.kept] + 3).tolist()


@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl"])
def test_implementations_of_attention_agree(name):
    """9: nothing but features is read."""
    case = CASES[name]
    given = case.inputs([[case.image(0)]])
    results = [run(case.build(kind), given, keep=0.5) for kind in ("eager", "sdpa")]
    torch.testing.assert_close(results[0][0], results[1][0], atol=1e-4, rtol=1e-4)
    for one, other in zip(results[0][1].trace.events, results[1][1].trace.events, strict=True):
        assert one.stream.tolist() == other.stream.tolist()


@pytest.mark.parametrize(("mean", "first", "second"), [(64, 96, 32), (128, 192, 64), (192, 288, 96), (576, 576, 576)])
def test_the_published_stages(mean, first, second):
    """10: LLaVA-1.5, 576 tokens, 32 layers."""
    assert ApET().stages(mean, 576, 32) == (first, second)
    assert (first * 16 + second * 16) / 32 == mean


def test_mean_tokens_and_stages_of_a_session(vlm):
    """10: (n1 * 4 + n2 * 4) / 8."""
    _, session = run(vlm, inputs([(3, 9), (8, 2)]), keep=1 / 3)
    assert session.stats.visual == {i: 72.0 if i < 4 else 24.0 for i in range(8)}
    assert session.stats.achieved == pytest.approx(48 / 144)
    assert session.stats.prefill_flops < 0.6 * session.stats.prefill_flops_full
    _, session = run(vlm, inputs([(3, 9)]), keep=0.5, ratio=1.0)
    assert set(session.stats.visual.values()) == {72.0} and len(session.trace.events) == 1
    _, session = run(vlm, inputs([(3, 9)]), keep=0.75, layer=2)
    assert session.stats.visual[1] == 144 and session.stats.visual[2] == 96
    assert session.stats.achieved == pytest.approx(0.75)


def test_several_views_and_line_ends():
    case = CASES["llava_next"]
    model, image = case.build(), case.image(0, size=(57, 90))
    cells = case.cells(image)
    _, session = run(model, case.inputs([[image]]), keep=0.4)
    for event in session.trace.events:
        got = [cells[n - 2] for n in event.stream[0].tolist() if 2 <= n < 2 + len(cells)]
        assert got.count(None) == cells.count(None)
    first = [cells[n - 2] for n in session.trace.events[0].stream[0].tolist() if 2 <= n < 2 + len(cells)]
    views = [sum(cell is not None and cell[0] == crop for cell in first) for crop in range(5)]
    sizes = [sum(cell is not None and cell[0] == crop for cell in cells) for crop in range(5)]
    assert all(0 < n < size for n, size in zip(views, sizes, strict=True))
    assert sizes[0] == SIDE**2
    assert all(abs(n - sum(views) * size / sum(sizes)) <= 1 for n, size in zip(views, sizes, strict=True))


def test_a_random_start_is_seeded(vlm):
    given = inputs([(3, 9)])
    streams = [run(vlm, given, keep=0.3, first="random", seed=s)[1].trace.events[0].stream for s in (0, 0, 1)]
    assert streams[0].tolist() == streams[1].tolist() != streams[2].tolist()


@pytest.mark.parametrize(
    "wrong",
    [{"basis": 0}, {"ratio": 0.0}, {"ratio": 2.0}, {"first": "last"}, {"ridge": 0.0}, {"blend": 1.5}, {"positions": "x"}],
)
def test_wrong_parameters_are_named(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ApET(**wrong)


def test_a_budget_too_small_for_every_view(vlm):
    with pytest.raises(BudgetError, match="each must keep one"):
        run(vlm, inputs([(3, 9)], images=3), tokens=1)
    with pytest.raises(ValueError, match="layer=8"):
        run(vlm, inputs([(3, 9)]), keep=0.5, layer=8)
