"""Entries of an observed layer, mapped to a stream that was shortened or reordered since."""

from types import SimpleNamespace

import pytest
import torch

from laconic.errors import SessionError
from laconic.stream.observed import at_rows


def test_rows_are_found_by_their_tokens():
    """Two stored entries, then tokens 7..11 of a pass that began at token 7, the first of row 0 being padding."""
    index = torch.tensor([[0, 3, 7, 8, 9, 10, 11], [0, 3, 7, 8, 9, 10, 11]])[:, None].expand(-1, 2, -1)
    valid = torch.ones(2, 2, 7, dtype=torch.bool)
    valid[0, :, 2] = False
    seen = SimpleNamespace(new=5, index=index.int(), valid=valid, step=SimpleNamespace(start=7))
    place = torch.tensor([[4, 1, 2], [0, 2, 3]])
    stream = SimpleNamespace(obs=seen, place=place, ids=torch.zeros(2, 5), layer=3)
    entries = torch.arange(14.0).view(2, 7)
    assert at_rows(stream, entries).tolist() == [[6, 3, 4], [9, 11, 12]]


def test_an_unobserved_layer_is_an_error():
    with pytest.raises(SessionError, match="layer 2 was not observed"):
        at_rows(SimpleNamespace(obs=None, layer=3), torch.zeros(1, 1))
