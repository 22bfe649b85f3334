"""CDPruner; numbers in the docstrings are the lines of what it must show (1 and 4 are in tests/ops/test_dpp.py)."""

import pytest
import torch
from helpers.clip_tools import clip_of
from helpers.vision_tools import inputs
from helpers.vision_zoo import CASES

import laconic
from laconic import UnsupportedModelError
from laconic.methods.tokens.cdpruner import CDPruner
from laconic.ops.dpp import greedy_map


@pytest.fixture(scope="module")
def clip(vlm):
    return clip_of(vlm)


def run(model, given, **options):
    with laconic.compress(model, CDPruner(**options)) as session, torch.no_grad():
        session.logits = model(**given).logits[:, -1]
    return session


def cos(a, b):
    return float(torch.cosine_similarity(a.double(), b.double(), dim=0))


def slow(x, r, count):
    """The set with the largest log det, built point by point with determinants of the whole submatrix."""
    x, kept = torch.nn.functional.normalize(x.double(), dim=-1), []
    kernel = r.double()[:, None] * (x @ x.T) * r.double()
    while len(kept) < count:
        rest = [i for i in range(len(x)) if i not in kept]
        kept.append(max(rest, key=lambda i: (round(float(kernel[[*kept, i]][:, [*kept, i]].logdet()), 6), -i)))
    return sorted(kept)


def relevance(similar, theta=None):
    low, high = min(similar), max(similar)
    r = torch.tensor([(value - low + 1e-6) / (high - low) for value in similar])
    return r if theta is None else (theta / (2 * (1 - theta)) * r).exp()


def kept_of(session, row=0, first=3, total=144):
    return [at - first for at in session.trace.events[0].stream[row].tolist() if first <= at < first + total]


@pytest.mark.parametrize(("sign", "theta"), [(None, None), (-1, None), (1, 0.5)])
def test_equals_the_loops_with_words(vlm, sign, theta):
    """1: features against the embeddings of the words after the image."""
    given = inputs([(3, 9)])
    session = run(vlm, given, tokens=16, sign=sign, theta=theta)
    x = vlm.model.get_image_features(given["pixel_values"]).pooler_output[0]
    words = vlm.model.language_model.embed_tokens(given["input_ids"][0, 147:])
    similar = [(sign or 1) * sum(cos(token, word) for word in words) / 9 for token in x]
    r = relevance(similar, theta)
    assert kept_of(session) == slow(x, r, 16)
    torch.testing.assert_close(session.trace.events[0].scores[0, 3:147], r, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("words", [5, 100])
def test_equals_the_loops_with_clip(vlm, clip, words):
    """1 and 3: minus the cosine in the joint space, of the feature layer's patches; a long question in several pieces."""
    given, question = inputs([(3, 9)]), "what is red " * (words // 3)
    session = run(vlm, given, tokens=16, text="clip", text_tower=clip[0], tokenizer=clip[1], question=question)
    hidden = vlm.model.vision_tower(given["pixel_values"], output_hidden_states=True).hidden_states[-2][0, 1:]
    patches = clip[0].visual_projection(clip[0].vision_model.post_layernorm(hidden))
    ids = clip[1](question)["input_ids"]
    pieces = [ids[i : i + 77] for i in range(0, len(ids), 77)]
    texts = []
    for piece in pieces:
        padded = torch.tensor([piece + [0] * (77 - len(piece))])
        mask = torch.tensor([[1] * len(piece) + [0] * (77 - len(piece))])
        out = clip[0].text_model(input_ids=padded, attention_mask=mask)
        texts.append(clip[0].text_projection(out.pooler_output)[0])
    assert len(texts) == (1 if words == 5 else 2)
    similar = [-sum(cos(patch, text) for text in texts) / len(texts) for patch in patches]
    features = vlm.model.get_image_features(given["pixel_values"]).pooler_output[0]
    assert kept_of(session) == slow(features, relevance(similar), 16)


def test_constant_relevance_is_a_dpp_of_the_features_alone():
    """2: and with orthogonal features relevance alone decides."""
    method, x = CDPruner(), torch.randn(20, 32, generator=torch.Generator().manual_seed(0))
    (r,) = method._scaled([torch.full((20,), 0.3)])
    assert r.tolist() == [1.0] * 20
    low, high = method._scaled([torch.tensor([0.1, 0.4]), torch.tensor([0.2])])
    torch.testing.assert_close(torch.cat([low, high]), torch.tensor([0.0, 1.0, 1 / 3]), atol=1e-5, rtol=1e-4)
    r = torch.rand(20, generator=torch.Generator().manual_seed(1))
    orthogonal = r[:, None] * torch.eye(20) * r
    assert sorted(greedy_map(orthogonal, 6).tolist()) == sorted(r.topk(6).indices.tolist())
    unit = torch.nn.functional.normalize(x, dim=-1)
    assert slow(x, torch.ones(20), 5) == sorted(greedy_map(unit @ unit.mT, 5).tolist())


def test_the_question_decides(vlm):
    """3: a region that matches the words keeps more tokens than under DivPrune, and another question keeps others."""
    given, core = inputs([(3, 9)]), vlm.model
    words = core.language_model.embed_tokens(given["input_ids"][0, 147:])
    x = core.get_image_features(given["pixel_values"]).pooler_output[0].clone()
    scale = float(x.norm(dim=-1).mean())
    alike = torch.nn.functional.normalize(words, dim=-1).mean(0)
    x[40:60] += 1.5 * scale * alike / alike.norm()
    handle = core.multi_modal_projector.register_forward_hook(lambda module, args, output: x[None])
    try:
        planted = [n for n in kept_of(run(vlm, given, tokens=24)) if 40 <= n < 60]
        with laconic.compress(vlm, laconic.DivPrune(tokens=24)) as session, torch.no_grad():
            vlm(**given)
        other = given | {"input_ids": torch.cat([given["input_ids"][:, :147], given["input_ids"][:, 147:] + 20], 1)}
        assert len(planted) > sum(40 <= n < 60 for n in kept_of(session))
        assert kept_of(run(vlm, given, tokens=24)) != kept_of(run(vlm, other, tokens=24))
    finally:
        handle.remove()


def test_views_share_one_scale_and_keep_the_same_share():
    """5: as the release for the crops of an image; line ends stay."""
    case = CASES["llava_next"]
    model, image = case.build(), case.image(0, size=(57, 90))
    given, cells = case.inputs([[image]]), case.cells(image)
    session = run(model, given, keep=0.4)
    kept = [cells[at - 2] for at in session.trace.events[0].stream[0].tolist() if 2 <= at < 2 + len(cells)]
    assert kept.count(None) == cells.count(None)
    sizes = {crop: sum(cell is not None and cell[0] == crop for cell in cells) for crop in range(5)}
    found = {crop: sum(cell is not None and cell[0] == crop for cell in kept) for crop in range(5)}
    assert all(abs(found[crop] - 0.4 * sizes[crop]) <= 1 for crop in sizes)
    scores = session.trace.events[0].scores[0]
    assert float(scores[~scores.isnan()].max()) == pytest.approx(1, abs=1e-4)
    assert int((scores == scores[~scores.isnan()].max()).sum()) == 1


@pytest.mark.parametrize("options", [{"keep": 1.0}, {"tokens": 144}])
def test_neutral(vlm, options):
    given = inputs([(3, 9), (8, 2)])
    torch.testing.assert_close(run(vlm, given, **options).logits, vlm(**given).logits[:, -1], rtol=1e-5, atol=1e-5)


def test_protected_tokens_stay(vlm):
    session = run(vlm, inputs([(3, 9)]), tokens=6, protect=(10, 14))
    assert {7, 8, 9, 10} <= set(kept_of(session)) and len(kept_of(session)) == 6
    with pytest.raises(laconic.BudgetError, match="4 visual tokens are protected"):
        run(vlm, inputs([(3, 9)]), tokens=3, protect=(10, 14))


def test_refusals(vlm, clip):
    with pytest.raises(ValueError, match=r"cdpruner: text_tower=None.*text='llm'"):
        laconic.compress(vlm, CDPruner(text="clip"))
    with pytest.raises(UnsupportedModelError, match=r"cdpruner: a Qwen2\.5-VL model merges patches"):
        laconic.compress(CASES["qwen2_5_vl"].build(), CDPruner(text="clip", text_tower=clip[0]))
    with pytest.raises(ValueError, match="no text follows the last image"):
        run(vlm, inputs([(3, 0)]))
    for wrong in ({"text": "x"}, {"sign": 2}, {"theta": 1.0}, {"positions": "x"}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            CDPruner(**wrong)
