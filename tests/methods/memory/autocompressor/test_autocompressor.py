"""AutoCompressor: accumulated summaries, beside a loop on the model itself."""

import torch

from laconic.methods.memory.autocompressor.network import Summaries


def network(model):
    torch.manual_seed(1)
    return Summaries(model, 8, 4, 5)


@torch.no_grad()
def test_summaries_accumulate_before_every_segment(llama, prompt):
    net, ids, embed = network(llama), prompt(2, 20), llama.get_input_embeddings()
    seen = torch.zeros(2, 0, 32)
    for start, slots in ((0, 4), (8, 4), (16, 2)):
        mixed = torch.cat([seen, embed(ids[:, start : start + 8]), net.table[:slots].expand(2, -1, -1)], 1)
        seen = torch.cat([seen, llama.model(inputs_embeds=mixed).last_hidden_state[:, -slots:]], 1)
    torch.testing.assert_close(net.contexts(llama, ids, 0.5), seen)


@torch.no_grad()
def test_6_an_early_edit_reaches_later_summaries_and_no_earlier_ones(llama, prompt):
    net, ids = network(llama), prompt(1, 24)
    edited = ids.clone()
    edited[0, 9] = edited[0, 9] % 90 + 2
    changed = (net.contexts(llama, ids, 0.5) - net.contexts(llama, edited, 0.5)).abs().amax(-1)[0] > 1e-6
    assert changed.tolist() == [False] * 4 + [True] * 8


@torch.no_grad()
def test_summary_embeddings_start_near_that_of_the_end_of_a_text(llama):
    end = llama.get_input_embeddings().weight[5]
    assert float((network(llama).table - end).std()) < 0.03
