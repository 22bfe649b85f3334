"""Recoverable compression against loops; numbers in the docstrings are the lines of what it must show (1: test_outliers)."""

import math

import pytest
import torch
from helpers.clip_tools import LONGEST, clip_of
from helpers.vision_tools import inputs, random_vlm
from helpers.vision_zoo import CASES

import laconic
from laconic import BudgetError, SessionError, UnsupportedModelError
from laconic.families.vision import VisionWatch
from laconic.methods.encoder.recoverable_compression import RecoverableCompression, joint_attention, scaled
from laconic.ops.outliers import iqr_outliers, outlier_share

FINER = {"neighbours": 5, "inner_neighbours": 3, "scale": 1.5}
"""With few neighbours more values stand out, so that small images have centres."""


@pytest.fixture(scope="module")
def clip(vlm):
    return clip_of(vlm)


def scores(n=144, seed=0):
    """Positive scores with a long tail, like attention."""
    values = (1.5 * torch.randn(n, generator=torch.Generator().manual_seed(seed))).exp()
    return values / values.sum()


def run(model, given, **options):
    with laconic.compress(model, RecoverableCompression(**options)) as session, torch.no_grad():
        session.logits = model(**given).logits[:, -1]
    return session


def visual_of(model, given):
    found = []
    with VisionWatch(model, [-1]) as watch, torch.no_grad():
        handle = model.base_model.language_model.layers[0].register_forward_pre_hook(lambda m, a: found.append(watch.visual))
        model(**given)
        handle.remove()
    return found[0]


def slow_parts(a, s, method):
    """V, T, centres and the rest by the algorithm, with lists."""
    n, dyn = len(a), lambda values, m: min(1.0, method.scale * outlier_share(torch.tensor(values, dtype=torch.float64), m))
    a, s = a.tolist(), s.tolist()
    v = sorted(range(n), key=lambda i: -a[i])[: int(n * dyn(a, method.neighbours) + 1e-6)]
    s = [min(s) if i in v else s[i] for i in range(n)]
    count = int((n - len(v)) * dyn(s, method.neighbours) + 1e-6)
    t = sorted((i for i in range(n) if i not in v), key=lambda i: -s[i])[:count]
    o = [i for i in range(n) if i not in v and i not in t]
    base = len(v) + len(t) if method.paper_code else len(o)
    centres = sorted(o, key=lambda i: -a[i])[: int(base * dyn([a[i] for i in o], method.inner_neighbours) + 1e-6)]
    return v, t, centres, o


@pytest.mark.parametrize("paper_code", [False, True])
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("finer", [False, True])
def test_parts_equal_the_lists(seed, paper_code, finer):
    """2: V and T are disjoint, |Main| = n_v + n_t, Main is sorted."""
    method = RecoverableCompression(text="llm", paper_code=paper_code, **(FINER if finer else {}))
    a, s = scores(seed=seed), scores(seed=seed + 50)
    parts = method.parts(a, s)
    v, t, centres, o = slow_parts(a, s, method)
    assert sorted(v) == parts.visual.tolist() and sorted(t) == parts.text.tolist() and v and t
    assert centres == parts.centres.tolist() and (centres or not finer)
    assert parts.main.tolist() == sorted({*v, *t}) and len(parts.main) == len(v) + len(t)
    assert parts.others.tolist() == [i for i in o if i not in centres]


@pytest.mark.parametrize("paper_code", [False, True])
@pytest.mark.parametrize("n", [144, 40])
def test_merged_vectors_equal_the_loop(n, paper_code):
    """5: 32 neighbours, or fewer when O is small; the release looks up keys in the wrong rows."""
    torch.manual_seed(0)
    method = RecoverableCompression(text="llm", paper_code=paper_code, **FINER)
    a, s = scores(n, seed=3), scores(n, seed=9)
    x, keys = torch.randn(n, 12), torch.randn(n, 8)
    parts = method.parts(a, s)
    _, _, centres, o = slow_parts(a, s, method)
    expected = []
    for i in centres:
        affinity = {}
        for j in o:
            ki, kj = (keys[o.index(i)], keys[o.index(j)]) if paper_code else (keys[i], keys[j])
            affinity[j] = float(torch.cosine_similarity(ki, kj, dim=0) + 50 * s[j])
        near = sorted((j for j in o if j != i), key=lambda j: -affinity[j])[:32]
        expected.append(x[i] + sum(a[j] * x[j] for j in near))
    expected.append(sum(a[j] * x[j] for j in o if j not in centres))
    assert len(expected) > 1 and (n == 144) == (len(o) > 32)
    torch.testing.assert_close(method.merge(x, keys, a, s, parts), torch.stack(expected), rtol=1e-4, atol=1e-5)


def test_attention_of_all_heads_as_one(vlm):
    """softmax(q k^T / sqrt(C)), row CLS."""
    given = inputs([(3, 9), (8, 2)])
    visual = visual_of(vlm, given)
    tower = vlm.model.vision_tower
    hidden = tower(given["pixel_values"], output_hidden_states=True).hidden_states[-2]
    layer = getattr(tower, "vision_model", tower).encoder.layers[-1]
    normed = layer.layer_norm1(hidden)
    for row, span in enumerate(visual.spans):
        q, k = layer.self_attn.q_proj(normed[row, 0]), layer.self_attn.k_proj(normed[row])
        expected = torch.softmax(k @ q / math.sqrt(len(q)), 0)[1:].view(12, 12)
        ours = joint_attention(visual.calls["image"].heads[4], span.patches)
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-7)


def test_the_decoder_reads_main_centres_and_the_sum(vlm):
    """2, 7: features of Main bit for bit, in raster order, then merged ones; n_v + n_t + n_c + 1 tokens."""
    given = inputs([(3, 9)])
    seen = {}

    class Spy(RecoverableCompression):
        def cut(self, stream):
            seen["cut"], seen["stream"] = super().cut(stream), stream
            return seen["cut"]

        def parts(self, *args):
            seen["parts"], seen["args"] = super().parts(*args), args
            return seen["parts"]

    with laconic.compress(vlm, Spy(text="llm", scale=6.0)) as session, torch.no_grad():
        vlm(**given)
    parts, cut, stream = seen["parts"], seen["cut"], seen["stream"]
    main, n_c = parts.main, len(parts.centres)
    count = len(main) + n_c + 1
    assert n_c > 1 and session.stats.visual[0] == count < 144
    rows = cut.keep[0, 3 : 3 + count]
    assert (rows[: len(main)] - 3).equal(main) and (rows[len(main) : -1] - 3).equal(parts.centres)
    assert cut.values[0, 3 : 3 + len(main)].equal(stream.hidden[0, main + 3])
    span = stream.visual.spans[0]
    x = stream.visual.patches(span).flatten(0, 1)
    keys = stream.visual.keys(span).permute(1, 2, 0, 3).reshape(144, -1)
    new = RecoverableCompression(text="llm").merge(x, keys, seen["args"][0], seen["args"][1], parts)
    torch.testing.assert_close(cut.values[0, 3 + len(main) : 3 + count], stream.visual.project(new), rtol=1e-5, atol=1e-6)
    assert cut.keep[0, 3 + count :].tolist() == list(range(147, 156)) and cut.positions == "renumber"


def test_everything_in_main_is_the_uncompressed_sequence(vlm):
    """3."""
    given = inputs([(3, 9)])
    plain = vlm(**given).logits[:, -1]
    for options in ({"scale": 1e6}, {"tokens": 10**6}, {"keep": 1.0}):
        session = run(vlm, given, text="llm", **options)
        assert session.stats.visual[0] == 144
        torch.testing.assert_close(session.logits, plain, atol=1e-5, rtol=1e-5)


def test_questions_about_different_regions_recover_different_tokens():
    """4: planted: each question matches one corner; V is the same."""
    a = scores(seed=1)
    corners = [torch.arange(10), torch.arange(134, 144)]
    found = []
    for corner in corners:
        s = torch.rand(144, generator=torch.Generator().manual_seed(5)) * 0.01
        s[corner] += 0.2 + 0.02 * torch.arange(10) ** 2
        found.append(RecoverableCompression(text="llm", neighbours=8).parts(a, s))
    assert found[0].visual.equal(found[1].visual)
    for parts, corner in zip(found, corners, strict=True):
        assert set(corner.tolist()) <= set(parts.main.tolist())
    assert len(set(found[0].text.tolist()) & set(corners[1].tolist())) <= 1


def test_the_question_reaches_the_choice_through_clip(vlm, clip):
    """4: on a model; V is the same, what is recovered is not."""
    given = inputs([(3, 9)])
    found = []

    class Spy(RecoverableCompression):
        def parts(self, *args):
            found.append(super().parts(*args))
            return found[-1]

    for question in ("what is left red", "what is right blue cat", lambda ids: "what is left red"):
        method = Spy(text_tower=clip[0], tokenizer=clip[1], question=question, scale=6.0)
        with laconic.compress(vlm, method), torch.no_grad():
            vlm(**given)
    assert found[0].visual.equal(found[1].visual) and len(found[0].visual) > 0
    assert len(found[0].text) and len(found[1].text) and not found[0].text.equal(found[1].text)
    assert found[0].text.equal(found[2].text)


def test_similarity_in_the_space_of_clip(vlm, clip):
    """Text at the end-of-text token (the release: at the last padded place), patches without the last norm."""
    given = inputs([(3, 9)])
    visual = visual_of(vlm, given)
    words = clip[1]("what is red", padding="max_length", max_length=LONGEST, return_tensors="pt")
    states = clip[0].text_model(**{key: words[key] for key in ("input_ids", "attention_mask")}).last_hidden_state[0]
    last = vlm.model.vision_tower(given["pixel_values"]).last_hidden_state[0, 1:]
    for paper_code, place in ((False, 3), (True, LONGEST - 1)):
        method = RecoverableCompression(text_tower=clip[0], tokenizer=clip[1], question="what is red", paper_code=paper_code)
        method.attach(vlm)
        torch.testing.assert_close(method._text(None, 0), clip[0].text_projection(states[place]))
        torch.testing.assert_close(method._seen(visual, visual.spans[0]), clip[0].visual_projection(last))


def test_long_questions_are_truncated(vlm, clip):
    """9."""
    text = {"text_tower": clip[0], "tokenizer": clip[1], "keep": 0.3}
    session = run(vlm, inputs([(3, 9)]), question="cat " * 500, **text)
    assert session.stats.visual[0] == round(0.3 * 144)


def test_an_answer_that_the_cls_token_overlooks_is_recovered():
    """6: PruMerge's choice (outliers of CLS attention by quartiles) loses it."""
    a, answer = scores(seed=2), 77
    thing = torch.tensor([77, 78, 89, 90])
    a[thing] = a.median() / torch.arange(2, 6)
    s = torch.rand(144, generator=torch.Generator().manual_seed(5)) * 0.01
    s[thing] = torch.tensor([0.34, 0.33, 0.32, 0.31])
    prumerge = iqr_outliers(a).nonzero()[:, 0].tolist()
    parts = RecoverableCompression(text="llm").parts(a, s)
    assert len(prumerge) > 5 and answer not in prumerge and answer not in parts.visual.tolist()
    assert answer in parts.main.tolist() and len(parts.main) <= len(prumerge)


def test_the_number_of_tokens_varies_with_the_image(vlm):
    """7: the mean is far below the 144 tokens of an image."""
    counts = [run(vlm, inputs([(3, 9)], seed=seed), text="llm").stats.visual[0] for seed in range(8)]
    assert len(set(counts)) > 2 and 1 <= sum(counts) / len(counts) < 72


def test_no_randomness(vlm):
    """8."""
    given = inputs([(3, 9), (8, 2)])
    one, two = (run(vlm, given, text="llm", keep=0.4) for _ in range(2))
    assert one.logits.equal(two.logits)
    assert one.trace.events[0].stream.equal(two.trace.events[0].stream)


@pytest.mark.parametrize("keep", [0.05, 0.25, 0.5, 0.9])
def test_budgets_are_met(vlm, keep):
    session = run(vlm, inputs([(3, 9), (8, 2)], images=2), text="llm", keep=keep, scale=3.0)
    assert session.stats.visual[0] == round(keep * 288)


@pytest.mark.parametrize("limit", [1, 2, 3, 10, 60, 143, 144])
@pytest.mark.parametrize("counts", [(1, 0, 0), (8, 4, 12), (2, 0, 30), (0, 3, 0), (1, 30, 1)])
def test_scaled_counts(counts, limit):
    first, second, third = scaled(counts, limit, 144, 0)
    assert min(first, second, third) >= 0
    assert first + second + third + (third > 0) == limit
    if limit == 60:
        for new, old in zip((first, second, third), counts, strict=True):
            assert new == pytest.approx(old / sum(counts) * 60, abs=2)


def test_protected_tokens_stay():
    must = torch.zeros(144, dtype=torch.bool)
    must[[3, 70, 71]] = True
    method = RecoverableCompression(text="llm")
    for limit in (None, 5, 40):
        assert {3, 70, 71} <= set(method.parts(scores(), scores(seed=4), limit, must).visual.tolist())
    with pytest.raises(BudgetError, match="3 visual tokens are protected"):
        method.parts(scores(), scores(seed=4), 2, must)


def test_crops_keep_line_ends_and_every_view():
    case = CASES["llava_next"]
    image = case.image(0, size=(57, 90))
    cells = case.cells(image)
    session = run(case.build(), case.inputs([[image]]), text="llm", keep=0.4)
    got = [cells[n - 2] for n in session.trace.events[0].stream[0].tolist() if 2 <= n < 2 + len(cells)]
    assert got.count(None) == cells.count(None) and {cell[0] for cell in got if cell} == set(range(5))


def test_missing_parameters_are_refused(vlm, clip):
    with pytest.raises(ValueError, match=r"text_tower=None.*text='llm'"):
        laconic.compress(vlm, RecoverableCompression())
    with pytest.raises(ValueError, match="question=None"):
        laconic.compress(vlm, RecoverableCompression(text_tower=clip[0], tokenizer=clip[1]))
    with pytest.raises(ValueError, match="tokenizer=None"):
        laconic.compress(vlm, RecoverableCompression(text_tower=clip[0], question="cat"))
    with pytest.raises(SessionError, match="3 entries for a batch of 2"):
        text = {"text_tower": clip[0], "tokenizer": clip[1]}
        run(vlm, inputs([(3, 9), (8, 2)]), question=["cat"] * 3, **text)
    with pytest.raises(UnsupportedModelError, match="CLS token"):
        laconic.compress(CASES["llava_onevision"].build(), RecoverableCompression(text="llm"))


def test_a_clip_of_another_encoder_is_refused(clip):
    other = random_vlm()
    other.model.vision_tower.get_parameter(
        next(name for name, _ in other.model.vision_tower.named_parameters() if name.endswith("q_proj.weight"))
    ).add_(1.0)
    with pytest.raises(UnsupportedModelError, match="is not that of this model's vision encoder"):
        laconic.compress(other, RecoverableCompression(text_tower=clip[0], tokenizer=clip[1], question="cat"))


def test_a_folder_serves_as_clip(vlm, clip, tmp_path):
    for part in clip:
        part.save_pretrained(tmp_path)
    given = inputs([(3, 9)])
    one = run(vlm, given, text_tower=str(tmp_path), question="what is red", keep=0.3)
    two = run(vlm, given, text_tower=clip[0], tokenizer=clip[1], question="what is red", keep=0.3)
    assert one.trace.events[0].stream.equal(two.trace.events[0].stream)


@pytest.mark.parametrize("wrong", [{"text": "bert"}, {"scale": 0.0}, {"near": 0}, {"neighbours": 0}])
def test_wrong_parameters_are_named(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        RecoverableCompression(**wrong)
