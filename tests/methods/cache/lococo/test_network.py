"""LoCoCo's mixers: the slow loops of the paper's compress, the parameter count, and the file of the weights."""

import pytest
import torch
from helpers.reference import slow_top

from laconic import ArtifactError
from laconic.artifact import Artifact, numbers
from laconic.methods.cache.lococo.network import Mixer, compress, learned_slots, load, slots_of

B, H, NUM, D, DV, HEAVY, SLOTS, KERNEL = 2, 2, 23, 4, 6, 5, 4, 5


@pytest.fixture
def entries():
    generator = torch.Generator().manual_seed(0)
    keys = torch.randn(B, H, NUM, D, generator=generator)
    values = torch.randn(B, H, NUM, DV, generator=generator)
    return keys, values, torch.rand(B, H, NUM, generator=generator)


@pytest.fixture
def mixer():
    torch.manual_seed(1)
    return Mixer(D + DV, SLOTS, KERNEL).requires_grad_(False)


def slow_compress(keys, values, score, mixer, heavy):
    """One head [n, D]: the heavy entries and the slots, each number by itself, fp64."""
    n, slots, kernel = len(score), mixer.conv.out_channels, mixer.conv.kernel_size[0]
    kept = slow_top(score.tolist(), heavy)
    rest = [j for j in range(n) if j not in kept]
    x = [[*map(float, keys[j]), *map(float, values[j])] for j in rest]
    best = slow_top([float(score[j]) for j in rest], slots)
    weight, bias, nu = mixer.conv.weight.double(), mixer.conv.bias.double(), float(mixer.nu)
    out_keys = [keys[j].double() for j in kept]
    out_values = [values[j].double() for j in kept]
    for slot in range(slots):
        logits = []
        for place in range(len(rest)):
            total = float(bias[slot])
            for tap in range(kernel):
                at = place + tap - kernel // 2
                if 0 <= at < len(rest):
                    total += sum(float(weight[slot, c, tap]) * x[at][c] for c in range(len(x[at])))
            logits.append(max(0.0, total))
        p = torch.tensor(logits, dtype=torch.float64).softmax(0)
        row = [(1 - nu) * (place == best[slot]) + nu * float(p[place]) for place in range(len(rest))]
        out_keys.append(sum(w * keys[j].double() for w, j in zip(row, rest, strict=True)))
        out_values.append(sum(w * values[j].double() for w, j in zip(row, rest, strict=True)))
    return torch.stack(out_keys), torch.stack(out_values), kept


# line 9
@pytest.mark.parametrize("nu", [0.5, 0.2, 1.3])
def test_compress_equals_a_slow_loop(entries, mixer, nu):
    keys, values, score = entries
    mixer.nu.fill_(nu)
    got_keys, got_values, heavy = compress(*entries, mixer, HEAVY)
    assert got_keys.shape == (B, H, HEAVY + SLOTS, D) and got_values.shape == (B, H, HEAVY + SLOTS, DV)
    for b in range(B):
        for h in range(H):
            want_keys, want_values, kept = slow_compress(keys[b, h], values[b, h], score[b, h], mixer, HEAVY)
            torch.testing.assert_close(got_keys[b, h].double(), want_keys, atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(got_values[b, h].double(), want_values, atol=1e-5, rtol=1e-5)
            assert heavy[b, h].tolist() == kept


def test_the_published_kernel_keeps_all_places():
    mixer = Mixer(8, 3)
    assert mixer.conv.padding == (10,) and mixer.conv(torch.randn(1, 8, 40)).shape == (1, 3, 40)


# line 2
def test_without_nu_the_next_best_stay(entries, mixer):
    keys, values, score = entries
    mixer.nu.fill_(0.0)
    got_keys, got_values, _ = compress(*entries, mixer, HEAVY)
    for b in range(B):
        for h in range(H):
            ranked = score[b, h].argsort(descending=True).tolist()
            order = sorted(ranked[:HEAVY]) + sorted(ranked[HEAVY : HEAVY + SLOTS])
            assert torch.equal(got_keys[b, h], keys[b, h, order]) and torch.equal(got_values[b, h], values[b, h, order])


# line 3
def test_with_nu_one_a_sharp_convolution_copies(entries):
    keys, values, score = entries
    mixer = Mixer(D + DV, 2, 1).requires_grad_(False)
    mixer.nu.fill_(1.0)
    keys[:, :, :, 0] = torch.arange(NUM, dtype=torch.float32)  # the channel that tells the tokens apart
    score[:] = -torch.arange(NUM, dtype=torch.float32)  # tokens 0 .. 4 are the heavy ones
    mixer.conv.weight.zero_()
    mixer.conv.bias.zero_()
    mixer.conv.weight[0, 0, 0] = 1e3  # the last token wins
    mixer.conv.weight[1, 0, 0], mixer.conv.bias[1] = -1e3, 1e5  # the first of the rest wins
    got_keys, got_values, _ = compress(keys, values, score, mixer, HEAVY)
    for slot, token in ((HEAVY, NUM - 1), (HEAVY + 1, HEAVY)):
        assert torch.equal(got_keys[:, :, slot], keys[:, :, token])
        assert torch.equal(got_values[:, :, slot], values[:, :, token])


def test_with_nu_one_a_flat_convolution_averages(entries, mixer):
    keys = entries[0]
    mixer.nu.fill_(1.0)
    mixer.conv.weight.zero_()
    mixer.conv.bias.zero_()
    got_keys, _, heavy = compress(*entries, mixer, HEAVY)
    for b in range(B):
        for h in range(H):
            rest = [j for j in range(NUM) if j not in heavy[b, h].tolist()]
            for slot in range(HEAVY, HEAVY + SLOTS):
                torch.testing.assert_close(got_keys[b, h, slot], keys[b, h, rest].mean(0))


# line 4
def test_one_matrix_of_weights_for_keys_and_values(entries, mixer):
    keys, values, score = entries
    weights = mixer.weights(keys, values, score)
    torch.testing.assert_close(weights.sum(-1), torch.ones(B, H, SLOTS))
    mixed_keys, mixed_values = mixer(keys, values, score)
    torch.testing.assert_close(mixed_keys, torch.einsum("bhsn,bhnd->bhsd", weights, keys))
    torch.testing.assert_close(mixed_values, torch.einsum("bhsn,bhnd->bhsd", weights, values))


def test_half_precision_is_mixed_in_fp32(entries, mixer):
    keys, values, score = entries
    mixer.nu.fill_(0.0)
    half = keys.to(torch.bfloat16), values.to(torch.bfloat16)
    got, _, heavy = compress(*half, score, mixer, HEAVY)
    assert got.dtype == torch.bfloat16
    assert torch.equal(got[0, 0, :HEAVY], half[0][0, 0, heavy[0, 0]])


# line 10
@pytest.mark.parametrize(("d", "memory", "kernel"), [(8, 20, 5), (16, 33, 21)])
def test_parameter_count(d, memory, kernel):
    slots = learned_slots(memory, 0.5)
    count = sum(p.numel() for p in Mixer(2 * d, slots, kernel).parameters())
    assert count == 2 * d * slots * kernel + slots + 1
    assert 2 * 128 * learned_slots(512, 0.5) * 21 + learned_slots(512, 0.5) + 1 == 1_376_513  # Llama-2-7B, one layer


# the artifact
def test_an_artifact_gives_back_what_was_saved():
    torch.manual_seed(0)
    layers = torch.nn.ModuleList(Mixer(16, 10, 5) for _ in range(4))
    for dtype in (torch.float32, torch.bfloat16):
        found = load(Artifact("lococo", "trained", "tiny", None, {"memory": 20}, numbers(layers, dtype)))
        assert slots_of(found) == 10 and not any(p.requires_grad for p in found.parameters())
        for name, tensor in layers.state_dict().items():
            assert torch.equal(found.state_dict()[name], tensor.to(dtype).float())


def test_an_artifact_without_mixers_is_refused():
    with pytest.raises(ArtifactError, match="holds no tensors"):
        load(Artifact("lococo", "trained", "tiny", None, {"memory": 20}))
    with pytest.raises(ArtifactError, match="do not fit lococo"):
        load(Artifact("lococo", "trained", "tiny", None, {"memory": 20}, {"x": torch.ones(1)}))
