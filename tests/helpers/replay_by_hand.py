"""A prompt and its repetition in one plain pass with eager attention: what methods that replay are compared with."""

import torch


class Words:
    """A tokenizer whose every text is three tokens."""

    def __call__(self, text, add_special_tokens):
        assert not add_special_tokens
        return {"input_ids": [5, 6, 7]}


@torch.no_grad()
def repeated(model, ids, asks):
    """One sequence ids [1, n]: attention maps [H, n + P, n + P] and residual streams [n + P, hidden] of every layer."""
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    tokens = torch.cat([ids, torch.tensor([asks], dtype=torch.long), ids], 1)
    out = model(tokens, output_attentions=True, output_hidden_states=True)
    model.set_attn_implementation(before)
    return [layer[0] for layer in out.attentions], [states[0] for states in out.hidden_states[:-1]]


def strongest_by_hand(model, ids, asks):
    """[layers, Hkv, n]: the largest weight of each prompt entry that any later token of any head of the group pays."""
    n, heads = ids.shape[1], model.config.num_key_value_heads
    out = []
    for layer in repeated(model, ids, asks)[0]:
        rows = layer[:, n:, :n]
        group = rows.shape[0] // heads
        found = torch.zeros(heads, n)
        for h in range(rows.shape[0]):
            for j in range(n):
                found[h // group, j] = max(found[h // group, j], rows[h, :, j].max())
        out.append(found)
    return torch.stack(out)
