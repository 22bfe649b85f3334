"""The language model of deep tokens: causality, sampling with a cache, and two futures."""

import pytest
import torch

from laconic.methods.codecs.dicode.language import Language


def language(components=2, seed=0, **changes):
    torch.manual_seed(seed)
    sizes = {"words": 6, "text": 3, "frames": 3, "tokens": 2, "numbers": 4, "width": 16, "depth": 2, "heads": 2}
    return Language(**{**sizes, **changes}, components=components).eval()


@torch.no_grad()
def test_3_a_token_changes_what_is_said_of_later_ones_alone():
    model, ids, tokens = language(), torch.tensor([[1, 5, 0]]), torch.randn(1, 3, 2, 4)
    plain = model(ids, tokens)
    for n in range(6):
        other = tokens.clone()
        other[0, n // 2, n % 2] += 1
        apart = (model(ids, other).means - plain.means).abs().amax((-1, -2)).flatten()
        assert (apart > 1e-6).tolist() == [m > n for m in range(6)], n


@torch.no_grad()
def test_3_the_loss_is_of_the_token_itself_and_its_state_is_the_one_before():
    """The hidden state at <img> says the first token of a frame, that at a token the next one."""
    model, ids, tokens = language(), torch.tensor([[1, 5, 2]]), torch.randn(1, 3, 2, 4)
    words, image = model.gpt.wte(ids)[0], model.gpt.wte(torch.tensor([model.image]))
    rows = [words]
    for frame in range(3):
        rows.append(image)
        for place in range(2):
            rows.append((model.read(tokens[0, frame, place]) + model.frame_place[frame] + model.token_place[place])[None, 0])
    rows = [row.reshape(-1, 16) for row in rows]
    hidden = model.gpt(inputs_embeds=torch.cat(rows)[None]).last_hidden_state[0]
    said = model(ids, tokens)
    for frame in range(3):
        for place in range(2):
            numbers = model.write(hidden[3 + 3 * frame + place])
            torch.testing.assert_close(said.means[0, frame, place].flatten(), numbers[:8], atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(said.logits[0, frame, place], numbers[16:], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_sampling_with_a_cache_is_teacher_forcing():
    model, ids = language(components=1), torch.tensor([[1, 5, 0], [0, 0, 0]])
    made = model.sample(ids, 3, var_scale=0.0)
    assert made.shape == (2, 3, 2, 4)
    torch.testing.assert_close(model(ids, made).means.squeeze(-2), made, atol=1e-4, rtol=1e-4)
    a, b = (language().sample(ids, 2, 1.0, torch.Generator().manual_seed(s)) for s in (0, 1))
    assert torch.equal(a, language().sample(ids, 2, 1.0, torch.Generator().manual_seed(0))) and not torch.equal(a, b)


def futures(count, seed):
    """Texts and two frames: where the text names a direction (4 or 5) the second is its own, else (3) one of two."""
    drawn = torch.Generator().manual_seed(seed)
    way, named = (torch.randint(0, 2, (count,), generator=drawn) for _ in range(2))
    ids = torch.stack([torch.ones(count, dtype=torch.long), torch.where(named == 1, 4 + way, 3)], 1)
    tokens = 0.1 * torch.randn(count, 2, 2, 4, generator=drawn)
    tokens[:, 1] += (2.0 * way - 1)[:, None, None]
    return ids, tokens


def learned(components):
    model = language(components, text=2, frames=2).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for step in range(150):
        ids, tokens = futures(64, step)
        optimizer.zero_grad()
        model(ids, tokens).nll(tokens).mean().backward()
        optimizer.step()
    return model.eval()


@pytest.mark.slow
@torch.no_grad()
def test_9_a_mixture_beats_one_gaussian_where_there_are_two_futures_and_the_right_word_a_wrong_one():
    with torch.enable_grad():
        mixture, single = learned(4), learned(1)
    ids, tokens = futures(256, 10**6)
    open_ = ids[:, 1] == 3
    first = (torch.arange(2) == 1)[:, None] & (torch.arange(2) == 0)  # the first token of the second frame
    nll = {name: model(ids, tokens).nll(tokens)[:, first][:, 0] for name, model in (("4", mixture), ("1", single))}
    assert float(nll["4"][open_].mean()) < float(nll["1"][open_].mean()) - 0.5

    def second(model):  # how far the second frame begins from the middle of the two futures, and in which of them
        drawn = model.sample(ids[open_], 2, 0.0, torch.Generator().manual_seed(0))[:, 1, 0].mean(1)
        return float(drawn.abs().mean()), float((drawn > 0).float().mean())

    far, share = second(mixture)
    assert far > 0.7 and 0.2 < share < 0.8  # one of the two
    assert second(single)[0] < 0.5  # between them
    wrong_ids = torch.stack([ids[:, 0], torch.where(open_, ids[:, 1], 9 - ids[:, 1])], 1)  # 4 and 5 swapped
    right, swapped = (mixture(given, tokens).nll(tokens)[:, first][:, 0][~open_].mean() for given in (ids, wrong_ids))
    assert float(right) < float(swapped) - 0.2
