"""Codecs: budgets, what they refuse to decode, and sessions that they are not for."""

import pytest
import torch
from helpers.codec_tools import tiny_artifact, tiny_codec
from PIL import Image

import laconic
from laconic.codec.codes import Codes
from laconic.errors import ArtifactError, BudgetError, CodesError, MediaError, SessionError

IMAGE = Image.new("RGB", (8, 8), (200, 30, 90))


@pytest.mark.parametrize(
    ("budget", "kept"),
    [
        ({}, 4),
        ({"keep": 0.5}, 2),
        ({"keep": 0.1}, 1),
        ({"tokens": 3}, 3),
        ({"bytes": 1}, 1),
        ({"bytes": 2}, 2),
        ({"bytes": 99}, 4),
    ],
)
def test_budgets_count_tokens(tmp_path, budget, kept):
    assert len(tiny_codec(tmp_path, **budget).encode(IMAGE)) == kept


def test_what_is_asked_for_wins_over_the_budget(tmp_path):
    codec = tiny_codec(tmp_path, tokens=1)
    assert len(codec.encode(IMAGE, tokens=3)) == 3


@pytest.mark.parametrize("tokens", [0, 5, 64])
def test_tokens_beyond_the_codecs_length_are_refused(tmp_path, tokens):
    with pytest.raises(BudgetError, match=rf"tokens={tokens}: there are 4; ask for 1 to 4"):
        tiny_codec(tmp_path).encode(IMAGE, tokens)


def test_an_odd_size_is_refused(tmp_path):
    with pytest.raises(MediaError, match="the image is 9 x 8 pixels and this codec reads 8 x 8"):
        tiny_codec(tmp_path).encode(Image.new("RGB", (9, 8)))


def test_codes_of_another_codec_other_weights_or_another_length_are_refused(tmp_path):
    codec = tiny_codec(tmp_path)
    codes = codec.encode(IMAGE)
    with pytest.raises(CodesError, match="were made by other_codec, not by one_d_piece"):
        codec.decode(Codes("other_codec", codes.artifact, codes.shape, codes.values, 64))
    other = laconic.OneDPiece(artifact=tiny_artifact(tmp_path / "other.safetensors", seed=1))
    with pytest.raises(CodesError, match="made with other weights; pass the artifact that encoded them"):
        other.decode(codes)
    with pytest.raises(CodesError, match="5 tokens from 64 codes: one_d_piece has at most 4 from 64"):
        codec.decode(Codes("one_d_piece", codes.artifact, codes.shape, torch.zeros(5, dtype=torch.long), 64))
    with pytest.raises(CodesError, match="at most 4 from 64"):
        codec.decode(Codes("one_d_piece", codes.artifact, codes.shape, torch.zeros(4, dtype=torch.long), 128))


def test_an_artifact_of_another_method_is_refused():
    with pytest.raises(ArtifactError, match="is for razorattention, not for one_d_piece"):
        laconic.OneDPiece(artifact="razorattention-testbed-lm").encode(IMAGE)


def test_a_session_refuses_it_and_names_the_verbs(tmp_path, llama):
    session = laconic.compress(llama, tiny_codec(tmp_path))
    with pytest.raises(SessionError, match=r"one_d_piece is a codec: .* `laconic encode IMAGE -o FILE`"):
        session.__enter__()
    assert llama.config._attn_implementation != "laconic"
