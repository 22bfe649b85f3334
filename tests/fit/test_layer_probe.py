"""Greedy decoding that shows every layer."""

import torch

from laconic.fit.layer_probe import LayerProbe, greedy


class Letters:
    """A tokenizer of single letters; token 5 is a line break."""

    eos_token_id = None

    def decode(self, ids):
        return "".join("\n" if i == 5 else "x" for i in ids)


def test_greedy_equals_generate_and_watching_changes_nothing(llama, prompt):
    ids = prompt(1, 20)
    want = llama.generate(ids, max_new_tokens=7, do_sample=False, pad_token_id=0)[0, 20:].tolist()
    seen = []
    watch = LayerProbe(
        prefill=lambda s: seen.append(("prefill", s.new)), token=lambda s: seen.append(("token", s.keys.shape[2]))
    )
    got = list(greedy(llama, Letters(), ids[0].tolist(), watch, 7))
    assert got == want[: want.index(5)] if 5 in want else got == want
    assert seen[:4] == [("prefill", 19)] * 4 and seen[4:12] == [("token", 20)] * 4 + [("token", 21)] * 4


def test_greedy_stops_at_a_line_break_but_not_at_leading_ones(llama, prompt, monkeypatch):
    said = iter([5, 5, 9, 9, 5, 9])
    monkeypatch.setattr(torch.Tensor, "argmax", lambda self, *a, **k: torch.tensor(next(said)))
    logits = list(greedy_tokens(llama, prompt))
    assert logits == [5, 5, 9, 9]


def greedy_tokens(llama, prompt):
    return greedy(llama, Letters(), prompt(1, 6)[0].tolist(), LayerProbe(), 10)
