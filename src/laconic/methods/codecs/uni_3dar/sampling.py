"""Sampling of octrees: what is chosen at a node decides where the next one is, so any sample is a tree."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from laconic.methods.codecs.uni_3dar.entries import Row, Writer, batched
from laconic.methods.codecs.uni_3dar.network import Past, Uni3DARNet
from laconic.methods.codecs.uni_3dar.octree import Atom, Choice, Growth, Node

Chooser = Callable[[Node, Tensor], Choice]
"""Node and state [D] at its mask entry -> what is chosen."""


@torch.no_grad()
def grow(net: Uni3DARNet, choose: Chooser, most: int) -> Growth | None:
    """Grow one tree. Value and next mask entry go through the network together, and all that came before stays in a cache,
    mask entries, too: dropping them would change the function.

    Args:
        most: nodes at most; None is returned where they do not end the tree.

    Raises:
        ValueError: a network that was trained without mask entries.
    """
    if not net.sizes.doubled:
        raise ValueError("sampling needs a network with mask entries: train it with doubled=true.")
    writer, growth = Writer(net.sizes.grid, net.sizes.kinds), Growth(net.sizes.grid)
    past: Past | None = None
    new: list[Row] = []
    while (node := growth.next) is not None:
        if len(growth.chosen) == most:
            return None
        new.append(writer.mask(node))
        hidden, past = net(batched([new], writer.vocabulary), past)
        chosen = choose(node, hidden[0, -1])
        growth.take(chosen)
        new = [writer.value(node, chosen)]
    return growth


def sampler(net: Uni3DARNet, temperature: float, seed: int) -> tuple[Chooser, list[float]]:
    """A chooser that draws, and the log probabilities of all points that it draws, which grow as it is called."""
    drawn, seen = torch.Generator().manual_seed(seed), []

    def pick(logits: Tensor) -> tuple[int, float]:
        chances = (logits.float() / temperature).softmax(-1)
        at = int(torch.multinomial(chances, 1, generator=drawn))
        return at, float(chances[at].log())

    def choose(node: Node, state: Tensor) -> Choice:
        if node.level:
            return pick(net.tree(state))[0] + 1
        found: list[int] = []
        for i, one in enumerate(net.point.heads):
            at, log = pick(one(state))
            found.append(at)
            seen.append(log)
            if i < len(net.point.chosen):
                state = state + net.point.chosen[i](torch.tensor(at, device=state.device))
        return Atom(found[0], (found[1], found[2], found[3]))

    return choose, seen
