"""TS-LLaVA; numbers are the lines of what it must show."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from helpers.planted_vlm import BOS, IMAGE, attends, carries, planted
from helpers.vision_tools import inputs
from PIL import Image

from laconic import BudgetError, compress
from laconic.media import Frame
from laconic.methods.tokens.ts_llava import (
    TSLlava,
    evenly,
    frame_numbers,
    grid_of,
    images_of,
    thumbnail,
    thumbnail_numbers,
)

PATCHES = 144


def kept(vlm, method, images, texts=(3, 9), **more):
    given = inputs([texts], images=images)
    with compress(vlm, method) as session:
        vlm.generate(**given | more, max_new_tokens=1, do_sample=False)
    first = texts[0]
    numbers = [n - first for n in session.kept(0).tolist() if first <= n < first + images * PATCHES]
    return numbers, session


def test_1_all_samples_are_the_whole_sequence(vlm):
    given = inputs([(3, 9)], images=4)
    plain = vlm(**given).logits
    for method in (TSLlava(samples=4 * PATCHES, thumbnails=0), TSLlava(samples=3 * PATCHES), TSLlava(keep=1.0)):
        with compress(vlm, method):
            torch.testing.assert_close(vlm(**given).logits, plain, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("total", "count"), [(28800, 2880), (576, 7), (100, 100), (10, 4), (9, 1), (2, 2), (11, 5)])
def test_2_even_samples_equal_a_slow_reference(total, count):
    """Python's ``round`` also rounds halves to the even number: 2.5 -> 2."""
    found = evenly(total, count).tolist()
    expected = [round((total - 1) * i / (count - 1)) if count > 1 else 0 for i in range(count)]
    assert found == expected == np.round(np.linspace(0, total - 1, count)).astype(int).tolist()
    assert found[0] == 0 and (count == 1 or found[-1] == total - 1)
    assert all(a < b for a, b in pairwise(found))


def test_2_halves_go_to_the_even_number():
    assert evenly(6, 3).tolist() == [0, 2, 5] and evenly(8, 3).tolist() == [0, 4, 7]  # 2.5 and 3.5


def test_3_frames_share_alike_and_the_whole_grid_is_covered():
    numbers = evenly(50 * 576, 2880)
    frame, cell = numbers // 576, numbers % 576
    assert set(frame.bincount(minlength=50).tolist()) == {57, 58}
    rows, columns = (cell // 24).bincount(minlength=24), (cell % 24).bincount(minlength=24)
    assert rows.min() >= 0.95 * 120 and rows.max() <= 1.05 * 120
    assert columns.min() >= 0.95 * 120 and columns.max() <= 1.05 * 120
    blocks = ((cell // 24) // 6 * 4 + (cell % 24) // 6).bincount(minlength=16)
    assert blocks.min() >= 0.9 * 180 and blocks.max() <= 1.1 * 180
    assert (cell.bincount(minlength=576) > 0).float().mean() > 0.9


def test_3_in_a_session(vlm):
    numbers, _ = kept(vlm, TSLlava(samples=60), 5)
    assert numbers == evenly(4 * PATCHES, 60).tolist() + list(range(4 * PATCHES, 5 * PATCHES))
    counts = torch.tensor(numbers[:60]).div(PATCHES, rounding_mode="floor").bincount()
    assert all(abs(int(c) - 15) <= 1 for c in counts)


@pytest.mark.parametrize(
    ("tiles", "grid"), [(1, (1, 1)), (4, (2, 2)), (5, (5, 1)), (6, (3, 2)), (7, (7, 1)), (8, (4, 2)), (12, (4, 3))]
)
def test_4_tiles_lie_in_rows_in_time(tiles, grid):
    assert grid_of(tiles) == grid
    frames = (
        torch.arange(1.0, 51)[:, None, None, None].expand(50, 3, 336, 336) * torch.tensor([1.0, 2.0, -1.0])[:, None, None]
    )
    image, (rows, columns) = thumbnail(frames, tiles), grid
    height, width = 336 // rows, 336 // columns
    expected = torch.zeros(3, 336, 336)
    for place, frame in enumerate(round(49 * i / (tiles - 1)) if tiles > 1 else 0 for i in range(tiles)):
        top, left = place // columns * height, place % columns * width
        expected[:, top : top + height, left : left + width] = frames[frame, :, :1, :1]
    torch.testing.assert_close(image, expected, rtol=1e-5, atol=1e-5)  # the remainder of 336 stays zero


def test_4_shrinking_is_the_mean_of_areas():
    frames = torch.rand(6, 3, 96, 96)
    image = thumbnail(frames, 6)
    for tile in range(6):
        small = image[:, tile // 2 * 32 : tile // 2 * 32 + 32, tile % 2 * 48 : tile % 2 * 48 + 48]
        torch.testing.assert_close(small, frames[tile].view(3, 32, 3, 48, 2).mean((2, 4)))


def test_tiles_can_be_shuffled():
    frames = torch.arange(6.0)[:, None, None, None].expand(6, 3, 96, 96)
    one, same, other = (thumbnail(frames, 6, shuffle=seed) for seed in (1, 1, 2))
    assert torch.equal(one, same) and not torch.equal(one, other)
    assert sorted(one[0, ::32, ::48].flatten().tolist()) == [0, 1, 2, 3, 4, 5]


def test_5_counts_and_order(vlm):
    numbers, session = kept(vlm, TSLlava(samples=100), 4)
    assert session.stats.visual[0] == 100 + PATCHES
    assert numbers[100:] == list(range(3 * PATCHES, 4 * PATCHES))
    numbers, _ = kept(vlm, TSLlava(samples=100, first=True), 4)
    assert numbers == list(range(PATCHES)) + [PATCHES + n for n in evenly(3 * PATCHES, 100).tolist()]
    numbers, _ = kept(vlm, TSLlava(samples=50, thumbnails=2), 4)
    assert numbers == evenly(2 * PATCHES, 50).tolist() + list(range(2 * PATCHES, 4 * PATCHES))
    numbers, _ = kept(vlm, TSLlava(samples=0), 4)
    assert numbers == list(range(3 * PATCHES, 4 * PATCHES))


def test_a_budget_is_for_both(vlm):
    numbers, session = kept(vlm, TSLlava(keep=0.5), 4)
    assert numbers == evenly(3 * PATCHES, PATCHES).tolist() + list(range(3 * PATCHES, 4 * PATCHES))
    assert session.stats.achieved == pytest.approx(0.5) == session.stats.asked
    with pytest.raises(BudgetError, match="thumbnails have 144"):
        kept(vlm, TSLlava(keep=0.25), 4)


def test_6_the_host_is_as_it_was_and_single_images_are_told_apart(vlm):
    before = {name: x.clone() for name, x in vlm.state_dict().items()}
    kept(vlm, TSLlava(samples=10), 3)
    assert all(torch.equal(x, before[name]) for name, x in vlm.state_dict().items())
    given = inputs([(3, 9)])
    plain = vlm(**given).logits
    with compress(vlm, TSLlava(thumbnails=0)):
        torch.testing.assert_close(vlm(**given).logits, plain, rtol=1e-4, atol=1e-4)
    with compress(vlm, TSLlava(samples=0)):
        torch.testing.assert_close(vlm(**given).logits, plain, rtol=1e-4, atol=1e-4)
    with compress(vlm, TSLlava()), pytest.raises(ValueError, match="1 images in sequence 0, thumbnails=1"):
        vlm(**given)
    text = torch.randint(10, 400, (1, 20))
    plain = vlm(input_ids=text).logits
    with compress(vlm, TSLlava()):
        torch.testing.assert_close(vlm(input_ids=text).logits, plain, rtol=1e-4, atol=1e-4)


def test_7_frames_encoded_one_by_one_give_the_same_tokens(vlm):
    pixels = inputs([(1, 1)], images=5)["pixel_values"]
    whole = torch.stack(list(vlm.model.get_image_features(pixels).pooler_output))
    for size in (1, 2):
        parts = [torch.stack(list(vlm.model.get_image_features(part).pooler_output)) for part in pixels.split(size)]
        torch.testing.assert_close(torch.cat(parts), whole, rtol=1e-4, atol=1e-5)
    assert kept(vlm, TSLlava(samples=77), 5)[0] == kept(vlm, TSLlava(samples=77), 5)[0]


CUE, YES, NO, ASK = 0, 10, 11, 5
FRAME = torch.tensor([0.0, 1.0, 0.0])[:, None, None].expand(3, 96, 96)
RED = torch.tensor([1.0, 0.0, 0.0])[:, None, None]


@pytest.fixture(scope="module")
def watcher():
    """Says `YES` if any visual token is red."""
    model = planted(12, layers=1)
    words = model.get_input_embeddings().weight
    words[BOS, 50], words[ASK, 32] = 7.0, 7.0
    attends(model, 0, 0, 32, CUE, 2.0)
    carries(model, 0, 0, CUE, 40)
    model.lm_head.weight[YES, 40], model.lm_head.weight[NO, 32] = 1.0, 0.05
    return model


def says(model, method, images):
    ids = torch.tensor([[BOS, *[IMAGE] * (PATCHES * len(images)), ASK]])
    with compress(model, method):
        out = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), pixel_values=images, max_new_tokens=1)
    return int(out[0, -1])


def test_8_samples_cover_time_the_thumbnail_shows_detail_both_do_both(watcher):
    """12 frames, 144 samples, six tiles. First a single red frame that is not a tile; then red spots that lie between the
    sampled tokens of the six frames that are tiles."""
    tiles, sampled = thumbnail_numbers(12), evenly(12 * PATCHES, PATCHES)
    moment = FRAME.repeat(12, 1, 1, 1)
    assert 5 not in tiles
    moment[5] = RED
    detail = FRAME.repeat(12, 1, 1, 1)
    for frame in tiles:
        own = sampled[sampled // PATCHES == frame] % PATCHES
        free = [c for c in range(0, 12, 2) if not bool(torch.isin(own % 12, torch.tensor([c, c + 1])).any())]
        detail[frame, :, 24:48, 8 * free[0] : 8 * free[0] + 16] = RED
    for video, expected in ((moment, (YES, NO, YES)), (detail, (NO, YES, YES)), (FRAME.repeat(12, 1, 1, 1), (NO, NO, NO))):
        both = torch.cat([video, thumbnail(video)[None]])
        samples = says(watcher, TSLlava(samples=PATCHES, thumbnails=0), video)
        grid = says(watcher, TSLlava(samples=0), both)
        assert (samples, grid, says(watcher, TSLlava(samples=PATCHES), both)) == expected


def test_9_short_clips_give_what_they_have(vlm):
    assert frame_numbers(3) == [0, 1, 2] and frame_numbers(1) == [0] and frame_numbers(50) == list(range(50))
    assert thumbnail_numbers(2) == [0, 1] and thumbnail(torch.rand(2, 3, 96, 96)).shape == (3, 96, 96)
    numbers, _ = kept(vlm, TSLlava(), 3)  # 288 frame tokens and not 2,880
    assert numbers == list(range(3 * PATCHES))


def test_frames_are_the_middles_of_segments():
    for total in (51, 120, 1000):
        segment, expected = (total - 1) / 50, []
        for i in range(50):
            expected.append((int(np.round(segment * i)) + int(np.round(segment * (i + 1)))) // 2)
        assert frame_numbers(total) == expected and len(set(expected)) == 50


def test_10_flops_follow_from_the_tokens(vlm):
    _, session = kept(vlm, TSLlava(samples=100), 5)
    shape, stats = session.shape, session.stats
    few, all_tokens = 12 + 100 + PATCHES, 12 + 5 * PATCHES
    assert stats.prefill_flops == shape.prefill_flops([few] * 8)
    assert stats.prefill_flops_full == shape.prefill_flops([all_tokens] * 8)
    assert stats.stream == dict.fromkeys(range(8), few)


def test_positions_are_renumbered(vlm):
    """The same logits as for a prompt that never had the other tokens."""
    given = inputs([(3, 9)], images=3)
    with compress(vlm, TSLlava(samples=30)) as session:
        logits = vlm(**given).logits[0, -1]
    ids, stack = given["input_ids"], vlm.model.language_model
    hidden = stack.embed_tokens(ids)
    hidden[0, 3 : 3 + 3 * PATCHES] = torch.cat(list(vlm.model.get_image_features(given["pixel_values"]).pooler_output))
    hidden = hidden[:, session.kept(0)]
    n = hidden.shape[1]
    mask = torch.full((n, n), float("-inf")).triu(1)[None, None]
    for layer in stack.layers:
        hidden = layer(hidden, attention_mask=mask, position_embeddings=stack.rotary_emb(hidden, torch.arange(n)[None]))
    torch.testing.assert_close(logits, vlm.lm_head(stack.norm(hidden))[0, -1], rtol=1e-4, atol=1e-4)


def test_rows_of_a_batch(vlm):
    given = inputs([(3, 9), (8, 2)], images=3)
    with compress(vlm, TSLlava(samples=50)) as session:
        vlm.generate(**given, max_new_tokens=1, do_sample=False)
    for row in range(2):
        at = (given["input_ids"][row] == 6).nonzero()[:, 0]
        own = [n for n in session.kept(0, row=row).tolist() if n in at.tolist()]
        assert own == torch.cat([at[evenly(2 * PATCHES, 50)], at[2 * PATCHES :]]).tolist()


def test_images_for_a_processor():
    frames = [Image.new("RGB", (160, 90), (4 * n, 100, 0)) for n in range(60)]
    made = images_of(frames, 96)
    assert len(made) == 51 and {p.size for p in made} == {(96, 96)}
    assert [p.getpixel((5, 5))[0] // 4 for p in made[:50]] == frame_numbers(60)
    for place, frame in enumerate(thumbnail_numbers(50)):
        assert made[-1].getpixel((place % 2 * 48 + 20, place // 2 * 32 + 20)) == made[frame].getpixel((5, 5))


def test_the_images_of_a_prompt_are_frames_and_their_thumbnail():
    """Beside still images, which it leaves as they are."""
    frames = [Frame(Image.new("RGB", (160, 90), (4 * n, 100, 0)), n, 60, "clip.mp4") for n in range(60)]
    still = Frame(Image.new("RGB", (7, 7)), 0, 1, "photo.png")
    shown = TSLlava().arrange([still], frames, 96)
    assert [frame.number for frame in shown[1:-1]] == frame_numbers(60) and shown[0] is still
    assert [frame.image for frame in shown[1:]] == images_of([frame.image for frame in frames], 96)
    assert (shown[-1].source, shown[-1].of) == ("clip.mp4, thumbnail", 1)
    first = TSLlava(first=True).arrange([still], frames, 96)
    assert first[0].image == shown[-1].image and first[1] is still and len(first) == len(shown)
    assert {frame.image.size for frame in TSLlava().arrange([], frames, None)} == {(336, 336)}


def test_without_a_thumbnail_frames_stay_as_they_are():
    frames = [Frame(Image.new("RGB", (9, 9)), n, 2, "clip.mp4") for n in range(2)]
    assert TSLlava(thumbnails=0).arrange([], frames, 96) == frames
    with pytest.raises(ValueError, match="thumbnails=2: one is made of a video"):
        TSLlava(thumbnails=2).arrange([], frames, 96)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"samples": -1}, "samples=-1"),
        ({"samples": 0, "thumbnails": 0}, "leave nothing"),
        ({"positions": "x"}, "choose 'gather'"),
    ],
)
def test_settings_that_make_no_sense(given, message):
    with pytest.raises(ValueError, match=message):
        TSLlava(**given)
