"""Lists of heads, as text and by score."""

import pytest

from laconic.cache.heads import highest, resolve, shape, write
from laconic.errors import ArtifactError


def test_text_and_lists():
    assert resolve("all", 2, 3) == [[0, 1, 2], [0, 1, 2]] and resolve("no", 2, 3) == [[], []]
    assert resolve("L1H2+L0H1+L1H0", 2, 3) == [[1], [2, 0]]  # the order given is the order of preference
    assert resolve([[1], [0, 2]], 2, 3) == [[1], [0, 2]]
    for heads in ([[1], [0, 2]], [[], []]):
        assert resolve(write(heads), 2, 3) == heads


@pytest.mark.parametrize(
    ("heads", "message"),
    [
        ("L0H3", "from 0 to 2"),
        ("L2H0", "not one of the 2"),
        ("L0H1+L0H1", "different numbers"),
        ("0.1", "such as L0H1"),
        ([[0]], "given for 1 layers"),
        ([[0], [7]], r"heads \[7\] of layer 1"),
    ],
)
def test_what_does_not_fit_is_refused(heads, message):
    with pytest.raises(ArtifactError, match=message):
        resolve(heads, 2, 3)


def test_the_highest_share_over_all_layers_by_index():
    scores = [[0.5, 0.9], [0.5, 0.1], [0.5, 0.5]]
    assert highest(scores, 1 / 6) == {(0, 1)}
    assert highest(scores, 0.5) == {(0, 1), (0, 0), (1, 0)}  # of equal scores the earlier ones: never more than asked
    assert highest(scores, 0.01) == set()
    assert len(highest(scores, 1.0)) == 6


def test_shape(llama):
    assert shape(llama) == (4, 4, 2)
