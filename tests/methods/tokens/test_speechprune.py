"""SpeechPrune against the equations of arXiv 2412.12009, term by term, on a tiny Qwen2-Audio."""

import math

import pytest
import torch
from helpers.audio_zoo import AUDIO, heard, qwen2_audio

import laconic
from laconic.families.vision import VisionWatch
from laconic.methods.tokens.speechprune import attention_received, relevant, shared, signed


def slow_first(tokens, question, frame, left):
    """Phase 1 by loops: the chosen indices."""
    cos = [[float(torch.dot(u, v) / (u.norm() * v.norm())) for v in question] for u in tokens]
    a = [sum(row) for row in cos]
    frames = [list(range(i, min(i + frame, len(a)))) for i in range(0, len(a), frame)]
    total = [sum(a[u] for u in one) for one in frames]
    p = [math.exp(t) / sum(math.exp(s) for s in total) for t in total]
    counts = [min(math.floor(left * x), len(one)) for x, one in zip(p, frames, strict=True)]
    fractions = sorted(range(len(p)), key=lambda i: -(left * p[i] - math.floor(left * p[i])))
    while sum(counts) < left:
        for i in fractions:
            if sum(counts) < left and counts[i] < len(frames[i]):
                counts[i] += 1
    kept = []
    for one, count in zip(frames, counts, strict=True):
        kept += sorted(one, key=lambda u: -a[u])[:count]
    return sorted(kept)


def slow_second(x, attention):
    """Phase 2 by loops over queries and keys: the mean attention received."""
    sign = lambda m: [[1.0 if v >= 0 else -1.0 for v in row] for row in m.tolist()]  # noqa: E731
    s, wq, wk = (
        torch.tensor(sign(x)),
        torch.tensor(sign(attention.q_proj.weight)),
        torch.tensor(sign(attention.k_proj.weight)),
    )
    q, k = s @ wq.T, s @ wk.T
    d = attention.head_dim
    k = torch.cat(
        [k[:, h // 2 * d : (h // 2 + 1) * d] for h in range(q.shape[1] // d)], 1
    )  # two query heads share a KV head
    received = torch.zeros(len(x))
    for i in range(len(x)):
        logits = torch.stack([(q[i] * k[j]).sum() for j in range(len(x))]) / q.shape[1] ** 0.5
        received += logits.softmax(0) / len(x)
    return received


@torch.no_grad()
def test_equals_the_slow_reference_in_a_session():
    model, inputs = qwen2_audio(), heard([45])
    ids = inputs["input_ids"][0]
    found = []
    with VisionWatch(model) as watch:
        handle = model.model.language_model.register_forward_pre_hook(
            lambda m, a, k: found.append((watch.visual, k["inputs_embeds"])), with_kwargs=True
        )
        model(**inputs)
        handle.remove()
    visual, embeds = found[0]
    tokens = visual.features(visual.spans[0])
    question = embeds[0, -6:]  # the end mark of the sound, which no configuration names, and five words
    attention = model.model.language_model.layers[0].self_attn
    first = slow_first(tokens, question, 25, 30)
    second = slow_second(tokens[first], attention)
    kept = sorted(first[i] for i in second.argsort(descending=True, stable=True)[:12].tolist())
    with laconic.compress(model, "speechprune:first=30,tokens=12") as session:
        model(**inputs)
    start = int((ids == AUDIO).nonzero()[0])
    merged = session.trace.events[0].merged[0]
    assert [i for i in range(45) if int(merged[start + i]) >= 0] == kept


def test_the_first_phase():
    generator = torch.Generator().manual_seed(0)
    for left in (5, 17, 40, 60):
        tokens, question = (torch.randn(n, 6, generator=generator) for n in (60, 4))
        frames = torch.arange(60) // 25
        a = torch.nn.functional.normalize(tokens) @ torch.nn.functional.normalize(question).T
        assert relevant(a.sum(1), frames, left).nonzero()[:, 0].tolist() == slow_first(tokens, question, 25, left)


def test_the_second_phase_and_the_sign_of_zero():
    layer = qwen2_audio().model.language_model.layers[0]
    x = torch.randn(9, 32, generator=torch.Generator().manual_seed(0))
    x[0, :4] = 0
    received = attention_received(x, layer)
    assert torch.allclose(received, slow_second(x, layer.self_attn), atol=1e-6)
    assert float(received.sum()) == pytest.approx(1)  # columns of a softmax; the mean of a row would be 1/9 everywhere
    assert float(received.std()) > 0
    assert signed(torch.tensor([0.0, -0.0, -1.0, 2.0])).tolist() == [1, 1, -1, 1]


def test_a_second_like_the_question_is_kept():
    generator = torch.Generator().manual_seed(0)
    question = torch.randn(3, 16, generator=generator)
    tokens = torch.randn(100, 16, generator=generator)
    tokens[25:50] = question.repeat(9, 1)[:25]
    a = torch.nn.functional.normalize(tokens) @ torch.nn.functional.normalize(question).T
    assert bool(relevant(a.sum(1), torch.arange(100) // 25, 40)[25:50].all())


def test_shares_are_exact():
    assert shared([0.5, 0.3, 0.2], [100, 100, 100], 10) == [5, 3, 2]
    assert shared([0.96, 0.03, 0.01], [25, 25, 20], 50) == [25, 13, 12]
    assert shared([1.0, 0.0], [2, 2], 9) == [2, 2]


def test_all_of_them_in_order():
    """N1 = N and K = N1: nothing changes."""
    model, inputs = qwen2_audio(), heard([45])
    with torch.no_grad(), laconic.compress(model, "speechprune:first=45,tokens=45"):
        ours = model(**inputs).logits
    with torch.no_grad():
        assert torch.allclose(ours, model(**inputs).logits, atol=1e-5)


def test_without_words():
    inputs = heard([45], question=0)
    ids = inputs["input_ids"]
    stays = torch.tensor([i for i, token in enumerate(ids[0].tolist()) if token in (1, AUDIO)])
    inputs |= {"input_ids": ids[:, stays], "attention_mask": inputs["attention_mask"][:, stays]}
    model = qwen2_audio()
    with laconic.compress(model, "speechprune:keep=0.5"), pytest.raises(ValueError, match="no words beside the sound"):
        model(**inputs)


def test_parameters():
    with pytest.raises(ValueError, match="first=0 must be a whole number"):
        laconic.create_method("speechprune:first=0")
    with pytest.raises(ValueError, match=r"frame=0 must be a positive"):
        laconic.create_method("speechprune:frame=0")
