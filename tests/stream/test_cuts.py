"""Cuts of token methods, held against a plain run of the layers on what is left, written by hand."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from helpers.vision_exact import run
from helpers.vision_tools import IMAGE, inputs, laconic_hooks

from laconic import SnapKV, compress
from laconic.method import CATALOGUE
from laconic.stream.assemble import assemble
from laconic.stream.contract import TokenMethod


@dataclass(kw_only=True)
class Plan(TokenMethod):
    """Keeps chosen visual tokens before chosen layers: `plan[layer]` has rows of visual token numbers, by batch row."""

    plan: dict = None
    policy: str = "gather"
    merge: bool = False

    name: ClassVar[str] = "plan"

    def cuts(self, depth):
        return sorted(self.plan)

    def cut(self, stream):
        kept, values = [], []
        for b, numbers in enumerate(self.plan[stream.layer]):
            at = stream.images(b)
            first = stream.visual.of(b, stream.visual.spans[b].image)[0].start if stream.visual.spans else 0
            wanted = torch.tensor([n + first for n in numbers])
            rows = at[torch.isin(stream.place[b, at], wanted)]
            kept.append(rows)
            values.append(stream.hidden[b, rows] * 0.5 + stream.hidden[b, at].mean(0) if self.merge else None)
        return assemble(stream, kept, values if self.merge else None, positions=self.policy)


CATALOGUE.pop("plan", None)


def by_hand(model, given, method, row, new):
    """Logits of `new` greedy tokens of one row and its cache lengths, by the slow run of what the plan leaves."""
    own = given["attention_mask"][row] == 1
    one = {"input_ids": given["input_ids"][row : row + 1, own], "pixel_values": given["pixel_values"][row : row + 1]}
    number = (one["input_ids"][0] == IMAGE).cumsum(0) - 1  # of the visual token that stands there

    def change(layer, hidden, visual, positions):
        nonlocal number
        if layer not in method.plan:
            return hidden, visual, positions
        keep = ~visual | torch.isin(number, torch.tensor(method.plan[layer][row]))
        if method.merge:
            hidden = torch.where(visual[:, None], hidden * 0.5 + hidden[visual].mean(0), hidden)
        number = number[keep]
        return hidden[keep], visual[keep], torch.arange(int(keep.sum())) if method.policy == "renumber" else positions[keep]

    logits, _, lengths = run(model, one, change, new)
    return logits, lengths


PLANS = {
    "input": {0: [[3, 50, 143]]},
    "inner": {2: [[0, 7, 8, 100]]},
    "last": {7: [[5]]},
    "three": {0: [list(range(0, 144, 3))], 3: [list(range(0, 144, 12))], 5: [[24, 36]]},
}


@pytest.mark.parametrize("merge", [False, True])
@pytest.mark.parametrize("policy", ["gather", "renumber"])
@pytest.mark.parametrize("name", PLANS)
def test_generation_equals_layers_run_by_hand(vlm, name, policy, merge):
    given = inputs([(3, 9)])
    method = Plan(plan=PLANS[name], policy=policy, merge=merge, keep=0.5)
    with compress(vlm, method) as session:
        out = vlm.generate(**given, max_new_tokens=5, do_sample=False, output_logits=True, return_dict_in_generate=True)
    logits, lengths = by_hand(vlm, given, method, 0, 5)
    torch.testing.assert_close(torch.cat(out.logits), logits, rtol=1e-4, atol=1e-4)
    stored = [layer.stored for layer in session.cache.compressed()]
    assert stored == [length + 4 for length in lengths]  # the last of five was not fed


@pytest.mark.parametrize("policy", ["gather", "renumber"])
def test_rows_of_a_batch_may_keep_different_numbers(vlm, policy):
    given = inputs([(3, 9), (8, 2)])
    plan = {0: [list(range(40)), list(range(0, 144, 2))], 4: [[1, 2], [0, 2, 4, 6, 8, 10]]}
    method = Plan(plan=plan, policy=policy, keep=0.5)
    with compress(vlm, method):
        out = vlm.generate(**given, max_new_tokens=4, do_sample=False, output_logits=True, return_dict_in_generate=True)
    for row in range(2):
        logits, _ = by_hand(vlm, given, method, row, 4)
        torch.testing.assert_close(torch.stack([x[row] for x in out.logits]), logits, rtol=1e-4, atol=1e-4)


def test_with_a_cache_method_behind_it_only_what_is_left_is_stored(vlm):
    given = inputs([(3, 9)])
    with compress(vlm, Plan(plan={0: [list(range(0, 144, 2))]}, keep=0.5), SnapKV(tokens=20, window=4)) as session:
        vlm.generate(**given, max_new_tokens=3, do_sample=False)
    assert [layer.stored for layer in session.cache.compressed()] == [22] * 8
    kept = session.kept(3)
    assert all(n < 3 or n >= 147 or (n - 3) % 2 == 0 for n in kept.tolist())


def test_figures_say_what_ran(vlm):
    given = inputs([(3, 9)])
    with compress(vlm, Plan(plan={0: [list(range(72))], 4: [list(range(36))]}, keep=0.375)) as session:
        vlm.generate(**given, max_new_tokens=2, do_sample=False)
    stats = session.stats
    assert stats.visual_in == 144 and stats.visual == {i: 72.0 if i < 4 else 36.0 for i in range(8)}
    assert stats.stream == {i: 84 if i < 4 else 48 for i in range(8)}
    assert stats.asked == pytest.approx(0.375) and stats.achieved == pytest.approx(0.375)
    assert stats.prefill_flops < 0.5 * stats.prefill_flops_full and stats.encoder_seconds > 0
    assert [(e.layer, e.before, e.after) for e in session.trace.events] == [(-1, 156, 84), (3, 84, 48)]


def test_nothing_is_left_behind_and_text_is_not_cut(vlm):
    ids = torch.randint(10, 400, (1, 20))
    plain = vlm(input_ids=ids).logits
    with compress(vlm, Plan(plan={0: [[1]], 3: [[1]]}, keep=0.5)) as session:
        torch.testing.assert_close(vlm(input_ids=ids).logits, plain)
        assert session.stats.visual_in == 0
    assert laconic_hooks(vlm) == []
