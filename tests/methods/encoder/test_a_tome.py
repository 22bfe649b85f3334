"""A-ToMe: means of neighbours, sizes that add up, and proportional attention that is exact on copies."""

import pytest
import torch
from helpers.audio_zoo import heard, qwen2_audio, whisper

import laconic
from laconic import BudgetError, UnsupportedModelError
from laconic.speech.clip import Clip, LayerView


def clip(n, count=None, seed=0):
    x = torch.randn(n, 8, generator=torch.Generator().manual_seed(seed))
    return Clip(x, 0.02, torch.zeros(n), count, torch.zeros(n, dtype=torch.bool))


def window(sound, columns=200):
    x = torch.randn(1, 8, columns, generator=torch.Generator().manual_seed(1))
    x[:, :, 2 * sound :] = -9.0
    return x


def slow_encoder(model, x, plan, proportional):
    """The encoder layer by layer, one token list for the sound and one for the padding; merging by loops."""
    encoder = model.model.encoder
    h = torch.nn.functional.gelu(encoder.conv1(x))
    h = torch.nn.functional.gelu(encoder.conv2(h)).transpose(1, 2)[0] + encoder.embed_positions.weight
    sound = plan[0]
    speech, padding, members = h[:sound], h[sound:], [[i] for i in range(sound)]
    for layer, left in zip(encoder.layers, plan[1:], strict=True):
        h = torch.cat([speech, padding])
        size = torch.tensor([float(len(m)) for m in members] + [1.0] * len(padding))
        attention, normed = layer.self_attn, layer.self_attn_layer_norm(h)
        q, k, v = (
            p(normed).unflatten(-1, (2, 16)).transpose(0, 1) for p in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        logits = q @ k.mT * 16**-0.5 + (size.log() if proportional else 0)
        h = h + attention.out_proj((logits.softmax(-1) @ v).transpose(0, 1).flatten(1))
        keys = k[:, : len(speech)].mean(0)
        cos = torch.nn.functional.cosine_similarity(keys[:-1], keys[1:], dim=-1)
        order, m = cos.argsort(descending=True).tolist(), 0
        while True:  # as many candidates as are needed
            taken, last = [], -2
            for i in range(len(cos)):
                if i in order[:m] and i > last + 1:
                    taken.append(i)
                    last = i
            if len(taken) == len(speech) - left:
                break
            m += 1
        merged, new = [], []
        i = 0
        while i < len(speech):
            pair = [i, i + 1] if i in taken else [i]
            weights = torch.tensor([float(len(members[j])) for j in pair])
            merged.append((h[pair] * weights[:, None]).sum(0) / weights.sum())
            new.append([one for j in pair for one in members[j]])
            i += len(pair)
        h, members = torch.cat([torch.stack(merged), h[len(speech) :]]), new
        h = h + layer.fc2(layer.activation_fn(layer.fc1(layer.final_layer_norm(h))))
        speech, padding = h[:left], h[left:]
    h = encoder.layer_norm(torch.cat([speech, padding]))
    return h[: len(members)], h[len(members) :], members


@torch.no_grad()
@pytest.mark.parametrize("proportional", [True, False])
def test_equals_the_encoder_by_hand(proportional):
    model, x = whisper(encoder_layers=3), window(60)
    method = laconic.AToMe(keep=0.4, silence=0.2, proportional=proportional)
    plan = [60, *method.plan(60, 24, 3)]
    speech, padding, members = slow_encoder(model, x, plan, proportional)
    with laconic.compress_encoder(model, method) as session:
        got = model.model.encoder(x).last_hidden_state[0]
    torch.testing.assert_close(got, torch.cat([speech, padding[::4]]), atol=1e-5, rtol=1e-5)
    to = session.windows[0].to.tolist()
    assert to == [next(g for g, m in enumerate(members) if i in m) for i in range(60)]


def test_only_neighbours_merge_and_nothing_is_lost():
    model = whisper(encoder_layers=3)
    with torch.no_grad(), laconic.compress_encoder(model, "a_tome:keep=0.3") as session:
        model.model.encoder(window(60))
    to = session.windows[0].to
    assert int(to.min()) == 0 and bool(((to[1:] - to[:-1] == 0) | (to[1:] - to[:-1] == 1)).all())
    assert torch.bincount(to).sum() == 60 and int(to.max()) + 1 == 18


@pytest.mark.parametrize("count", [30, 15, 7, 4])
def test_after_the_encoder_a_merged_token_is_the_mean_of_its_members(count):
    given = clip(30, count)
    found = laconic.AToMe(keep=0.5, at="output").reduce(given)
    assert len(found.kept) == count and found.kept.tolist() == sorted(found.kept.tolist())
    for place, value in zip(found.kept.tolist(), found.values, strict=True):
        members = (found.to == place).nonzero()[:, 0]
        assert members.tolist() == list(range(int(members[0]), int(members[-1]) + 1)) and int(members[0]) == place
        torch.testing.assert_close(value, given.tokens[members].mean(0))


@torch.no_grad()
def test_proportional_attention_to_copies_is_exact():
    """Sound whose neighbours are equal in pairs, merged in pairs at the output, is attended like the pairs."""
    model = whisper()
    hidden = torch.randn(1, 100, 32, generator=torch.Generator().manual_seed(0))
    hidden[0, 1:60:2] = hidden[0, 0:60:2]
    encoder, x, ids = model.model.encoder, window(60), torch.tensor([[1, 5, 7]])
    handle = encoder.layer_norm.register_forward_hook(lambda *_: hidden[:, : 60 + 40])
    want = model(input_features=x, decoder_input_ids=ids).logits
    with laconic.compress_encoder(model, "a_tome:threshold=0.9999,at=output,silence=9") as session:
        got = model(input_features=x, decoder_input_ids=ids).logits
    with laconic.compress_encoder(model, "a_tome:threshold=0.9999,at=output,silence=9,proportional=false"):
        unweighted = model(input_features=x, decoder_input_ids=ids).logits
    handle.remove()
    assert session.windows[0].kept == 30
    torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(unweighted, want, atol=1e-3)


def test_ratio_and_threshold():
    keys = torch.randn(2, 20, 4, generator=torch.Generator().manual_seed(0))
    view = LayerView(0, 2, keys, keys, 1.0, None)
    assert laconic.AToMe(ratio=0.25).step(view).count == 15
    cos = torch.nn.functional.cosine_similarity(keys.mean(0)[:-1], keys.mean(0)[1:], dim=-1)
    to = laconic.AToMe(threshold=0.3).step(view).to
    for i in range(19):
        if int(to[i]) == int(to[i + 1]):
            assert float(cos[i]) > 0.3
    assert laconic.AToMe(threshold=1.1).neutral and laconic.AToMe(ratio=0).neutral and laconic.AToMe(keep=1).neutral
    assert laconic.AToMe(threshold=0.999).step(view).count == 20


def test_plans_meet_the_count():
    method = laconic.AToMe()
    for tokens in (7, 60, 355):
        for count in range(-(-tokens // 16), tokens + 1):
            plan = method.plan(tokens, count, 4)
            assert plan[-1] == count
            assert all(-(-a // 2) <= b <= a for a, b in zip([tokens, *plan], plan, strict=False))


def test_in_a_prompt():
    model, inputs = qwen2_audio(), heard([40])
    with torch.no_grad(), laconic.compress(model, "a_tome:keep=0.25,at=output") as session:
        model(**inputs)
    assert session.stats.achieved == pytest.approx(0.25)


@pytest.mark.parametrize("spec", ["a_tome:keep=0.5,ratio=0.2", "a_tome:ratio=0.2,threshold=0.9"])
def test_one_amount_alone(spec):
    with pytest.raises(BudgetError, match="give one of them"):
        laconic.create_method(spec)


def test_what_is_refused():
    with pytest.raises(BudgetError, match=r"ratio=0.6 must be between 0 and 0.5"):
        laconic.AToMe(ratio=0.6)
    with pytest.raises(BudgetError, match="leave at least 15"):
        laconic.AToMe(keep=0.1).plan(60, 6, 2)
    with pytest.raises(ValueError, match="at='input'"):
        laconic.AToMe(at="input")
    with pytest.raises(UnsupportedModelError, match="joins its tokens"):
        laconic.compress(qwen2_audio(), "a_tome:keep=0.5")
