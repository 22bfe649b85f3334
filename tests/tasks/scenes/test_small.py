"""Small scenes: the same everywhere, different from each other, and of mixed complexity."""

from io import BytesIO

import numpy as np
from PIL import Image

from laconic.tasks.scenes.small import small_scene, small_scenes


def test_a_number_is_one_scene():
    a, b = small_scenes(5, 3), small_scenes(7, 1)
    assert a.shape == (3, 32, 32, 3) and a.dtype == np.uint8
    assert np.array_equal(a[2], b[0]) and not np.array_equal(a[0], a[1])
    assert small_scene(5) == small_scene(5) != small_scene(5, 16)


def test_shapes_are_inside_and_have_no_signs():
    for seed in range(200):
        scene = small_scene(seed)
        assert 1 <= len(scene.shapes) <= 4 and not scene.signs
        assert all(0 < s.x < 32 and 0 < s.y < 32 and 4 <= s.radius <= 8 for s in scene.shapes)


def test_some_take_far_more_bytes_than_others():
    def jpeg(image) -> int:
        Image.fromarray(image).save(buffer := BytesIO(), "JPEG", quality=75)
        return len(buffer.getvalue())

    header = jpeg(np.zeros((32, 32, 3), np.uint8))
    sizes = [jpeg(image) - header for image in small_scenes(0, 60)]
    assert max(sizes) > 2 * min(sizes)
