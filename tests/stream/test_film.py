"""What methods that read videos piece by piece share."""

import math

import torch
from helpers.streaming_tools import embeddings, prompt, video_testbed

from laconic.stream.clips import clips
from laconic.stream.contract import TokenMethod
from laconic.stream.film import RATES, TimeToken, followed, gridded, picked


def test_a_time_is_a_map_of_two_codes():
    torch.manual_seed(0)
    token = TimeToken(5)
    code = []
    for wave in (math.sin, math.cos):
        code.append([[wave(t * 10000 ** (-i / RATES)) for i in range(RATES)] for t in (3, 700)])
    flat = [x for t in (0, 1) for waves in code for x in waves[t]]
    torch.testing.assert_close(token(3, 700), torch.tensor(flat) @ token.out.weight.T + token.out.bias, rtol=1e-3, atol=1e-4)


def test_rows_of_different_length_are_followed_at_once():
    asks, tail = torch.randn(3, 4, 2), torch.randn(2, 2)
    rows, at = followed(asks, torch.tensor([4, 0, 2]), tail)
    for q, count in enumerate((4, 0, 2)):
        assert torch.equal(rows[q, : count + 2], torch.cat([asks[q, :count], tail]))
    assert torch.equal(picked(rows, at), tail.expand(3, -1, -1))


class Looks(TokenMethod):
    """Notes the grids of a video."""

    name = "looks"

    def cut(self, stream):
        (clip,) = clips(stream, 0)
        self.seen = gridded(stream, 0, clip, self.name)


def test_a_clip_in_a_session_as_grids():
    model, tokenizer = video_testbed()
    frames, method = torch.randint(0, 256, (5, 48, 48, 3), dtype=torch.uint8).numpy(), Looks(keep=0.5)
    given = prompt(tokenizer, frames)
    embeddings(model, method, given)
    want = model.model.get_video_features(given["pixel_values_videos"]).pooler_output[0, :-1]
    torch.testing.assert_close(method.seen, want.view(5, 3, 3, -1), rtol=1e-4, atol=1e-5)
