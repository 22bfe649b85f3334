"""Other tokens in the place of visual ones, and the rows of the stream that carry them."""

import pytest
import torch
from helpers.vision_tools import inputs

from laconic import BudgetError, compress
from laconic.stream.clips import Clip
from laconic.stream.contract import TokenMethod
from laconic.stream.grids import grid_rows, views
from laconic.stream.resample import first_rows, resampled


class Three(TokenMethod):
    """Three tokens for each image, which say which batch row and which image they are of, on the last rows of its second
    line."""

    name = "three"

    def cut(self, stream):
        return resampled(stream, self.name, lambda row: self.made(stream, row))

    def made(self, stream, row):
        for image, span in enumerate(views(stream, row)):
            yield grid_rows(stream, span)[1, -3:], torch.full((3, stream.hidden.shape[-1]), 10.0 * row + image)


def test_tokens_stand_where_their_images_were(vlm):
    seen, given = [], inputs([(3, 9), (8, 2)], images=2)
    with compress(vlm, Three(keep=0.5)) as session:
        hook = vlm.model.language_model.layers[0].register_forward_pre_hook(lambda module, args: seen.append(args[0]))
        vlm(**given)
    hook.remove()
    assert seen[0].shape[1] == 12 + 6 and session.stats.visual[0] == 6
    assert seen[0][0, 3:9, 0].tolist() == [0, 0, 0, 1, 1, 1]
    assert seen[0][1, 10:16, 0].tolist() == [10, 10, 10, 11, 11, 11]  # two rows of padding and eight of text are before them
    text = vlm.get_input_embeddings()(given["input_ids"][0, :3])
    torch.testing.assert_close(seen[0][0, :3], text)


def test_protected_tokens_cannot_be_replaced(vlm):
    with compress(vlm, Three(keep=0.5, protect=(3, 10))), pytest.raises(BudgetError, match=r"three: .* protected"):
        vlm(**inputs([(3, 9)]))


def test_the_first_rows_of_some_frames():
    clip = Clip((), torch.tensor([[9, 4, 5], [1, 2, 3], [6, 7, 8]]), torch.zeros(3, 3, dtype=torch.bool))
    assert first_rows("x", clip, 0, 1, 2, "").tolist() == [4, 9] and first_rows("x", clip, 0, 2, 4, "").tolist() == [
        1,
        4,
        5,
        9,
    ]
    assert first_rows("x", clip, 1, 3, 6, "").tolist() == [1, 2, 3, 6, 7, 8]
    with pytest.raises(BudgetError, match=r"x: 7 tokens are more than the 6 of the 2 frames they stand for; ask for less\."):
        first_rows("x", clip, 1, 3, 7, "ask for less")
    with pytest.raises(BudgetError, match="4 tokens are more than the 3 of the frame they"):
        first_rows("x", clip, 1, 2, 4, "ask for less")
