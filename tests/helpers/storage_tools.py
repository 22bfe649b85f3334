"""What the tests of storage methods share: a layer fed by hand, sessions compared, a small padded batch."""

import torch

import laconic
from laconic.cache.parts.base import DensePart

N, NEW = 80, 12
GREEDY = {
    "max_new_tokens": NEW,
    "do_sample": False,
    "return_dict_in_generate": True,
    "output_logits": True,
    "pad_token_id": 0,
}


def stream(n, b=2, h=2, d=16, seed=0):
    """keys and values of n tokens, [B, Hkv, n, D] each."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(b, h, n, d, generator=generator), torch.randn(b, h, n, d, generator=generator)


def fed(method, k, v, prefill, bits):
    """The parts of one sequence after a prompt of `prefill` tokens and the rest one by one; yields them at every length."""
    parts = [DensePart(k[:, :, :prefill], v[:, :, :prefill], {})]
    method.store(parts, bits, True)
    yield prefill, parts
    for n in range(prefill, k.shape[2]):
        columns = {"index": torch.full((*k.shape[:2], 1), n, dtype=torch.int32)} if parts[-1].has("index") else {}
        parts[-1].append(k[:, :, n : n + 1], v[:, :, n : n + 1], columns)
        method.store(parts, bits, False)
        yield n + 1, parts


def restored(parts):
    """keys, values and token numbers of all parts, as attention sees them."""
    pieces = [part.padded() for part in parts if part.length]
    index = [p[2].get("index", torch.arange(p[0].shape[2]).expand(p[0].shape[:3])) for p in pieces]
    return torch.cat([p[0] for p in pieces], 2), torch.cat([p[1] for p in pieces], 2), torch.cat(index, 2)


def logits(output):
    return torch.stack(output.logits)  # [new, B, vocabulary]


def padded_batch(prompt, pad=23):
    """ids and mask; the first row is padded on the left."""
    ids, mask = prompt(2, N), torch.ones(2, N, dtype=torch.long)
    ids[0, :pad], mask[0, :pad] = 0, 0
    return ids, mask


def kinds(session):
    """Kinds and lengths of the first layer's parts."""
    return [(part.kind, part.length) for part in next(session.cache.compressed()).parts]


def logits_with_saved_parts(model, method, prompt, pad, saved):
    """Logits [B, 20, V] of 20 tokens fed one by one after a padded batch; with `saved`, all parts are written to tensors and
    read back before the first of them and before the tenth."""
    ids, mask = padded_batch(prompt, pad)
    steps, out = prompt(2, 20, seed=3), []
    with laconic.compress(model, method) as session:
        model(ids, attention_mask=mask)
        for i in range(20):
            if saved and i in (0, 9):
                for layer in session.cache.compressed():
                    layer.parts = [type(part).from_tensors(part.tensors()) for part in layer.parts]
            out.append(model(steps[:, i : i + 1], past_key_values=session.cache).logits)
    return torch.cat(out, 1)
