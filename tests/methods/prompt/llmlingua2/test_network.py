"""LLMLingua-2's classifier: it looks both ways, costs what torch counts, and reads long texts piece by piece."""

import torch
from helpers.text_tools import scorer
from torch.utils.flop_counter import FlopCounterMode

from laconic.methods.prompt.llmlingua2.network import POSITIONS, Classifier, TokenClassifier


def network():
    torch.manual_seed(0)
    return TokenClassifier(32, 16, 2, 2).eval()


def test_every_token_sees_the_whole_chunk_and_its_place_in_it():
    net, x = network(), torch.randn(1, 12, 32)
    with torch.no_grad():
        want = net(x)
        for changed, seen in ((11, 0), (0, 11)):
            other = x.clone()
            other[0, changed] = torch.randn(32)
            assert abs(float(net(other)[0, seen] - want[0, seen])) > 1e-5
        same = net(torch.randn(32).expand(1, 12, 32))
        assert float(same.std()) > 1e-4  # equal tokens at different places


def test_flops_are_those_that_torch_counts():
    net = network().train()  # the fused kernel of inference counts nothing
    with FlopCounterMode(display=False) as counter:
        net(torch.randn(1, 40, 32))
    assert net.flops(40) == counter.get_total_flops()


def test_a_text_longer_than_a_chunk_is_read_piece_by_piece():
    reader = Classifier(scorer(), network())
    ids = [5 + i % 50 for i in range(POSITIONS + 30)]
    whole = reader.probabilities(ids)
    assert len(whole) == len(ids) and all(0 < p < 1 for p in whole)
    assert reader.flops == reader.network.flops(POSITIONS) + reader.network.flops(30)
    alone = Classifier(scorer(), network()).probabilities(ids[POSITIONS:])
    torch.testing.assert_close(torch.tensor(whole[POSITIONS:]), torch.tensor(alone))
