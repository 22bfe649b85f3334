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


def seen_by_segments(n, asks, chunks, sinks, lead):
    """bool [n + asks + n, n + asks + n]: the prompt causally; the request for the repetition as the first chunk; a repeated
    token sees sinks, its chunk with `lead` tokens before it, the request, and the repetition from there on up to itself."""
    total = 2 * n + asks
    seen = torch.zeros(total, total, dtype=torch.bool)
    for i in range(n):
        seen[i, : i + 1] = True
    edges = [n * i // chunks for i in range(chunks + 1)]
    for i in range(n, total):
        token = i - n - asks
        chunk = 0 if token < 0 else next(c for c in range(chunks) if token < edges[c + 1])
        first = max(0, edges[chunk] - lead)
        seen[i, : min(sinks, first)] = True
        seen[i, first : edges[chunk + 1]] = True
        seen[i, n : min(i + 1, n + asks)] = True
        seen[i, n + asks + first : i + 1] = token >= 0
    return seen


@torch.no_grad()
def strongest_under_a_mask(model, ids, asks, seen):
    """[layers, Hkv, n]: what `strongest_by_hand` finds when every token sees only what `seen` says."""
    before, n = model.config._attn_implementation, ids.shape[1]
    model.set_attn_implementation("eager")
    tokens = torch.cat([ids, torch.tensor([asks], dtype=torch.long), ids], 1)
    mask = torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min)[None, None]
    maps = model(tokens, attention_mask=mask, output_attentions=True).attentions
    model.set_attn_implementation(before)
    kv = model.config.num_key_value_heads
    return torch.stack([layer[0, :, n:, :n].unflatten(0, (kv, -1)).amax((1, 2)) for layer in maps])
