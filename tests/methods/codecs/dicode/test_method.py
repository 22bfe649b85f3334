"""DiCoDe as a codec: a film becomes the tokens of its borders, and a film again."""

import numpy as np
import pytest
import torch
from helpers.dicode_tools import dicode_artifact, tiny_dicode
from PIL import Image

import laconic
from laconic.codec.codes import Codes
from laconic.codec.images import pixels, shown
from laconic.errors import ArtifactError, BudgetError, CodesError, MediaError, SessionError
from laconic.media.film import Film
from laconic.methods.codecs.dicode.network import joined
from laconic.prompts.text import PromptError
from laconic.tasks.scenes.flights import Flight


def film(clips=2, seed=1_000_000):
    return Film(tuple(Image.fromarray(frame) for frame in Flight(seed, 8).frames(clips, 4)))


def same(a, b):
    return len(a) == len(b) and all(
        np.array_equal(np.asarray(x), np.asarray(y)) for x, y in zip(a.frames, b.frames, strict=True)
    )


@pytest.fixture
def codec(tmp_path):
    return laconic.DiCoDe(artifact=dicode_artifact(tmp_path / "d.safetensors"), steps=2)


@torch.no_grad()
def test_6_n_clips_take_the_tokens_of_n_plus_one_borders(codec):
    net = tiny_dicode()
    for clips in (1, 2, 3):
        codes = codec.encode(film(clips))
        assert len(codes) == 3 * (clips + 1) and codes.shape == (3 * clips + 1, 8, 8, 3) and codes.alphabet is None
        borders = pixels(film(clips).frames[::3])
        torch.testing.assert_close(codes.values, net.tokens(borders).flatten(0, 1))
        assert codes.bytes == 3 * (clips + 1) * 4 * 4


def test_6_sixteen_deep_tokens_a_border_by_default(tmp_path):
    path = dicode_artifact(tmp_path / "d.safetensors", tokens=16)
    assert [len(laconic.DiCoDe(artifact=path).encode(film(n))) for n in (1, 2, 3)] == [32, 48, 64]


@torch.no_grad()
def test_films_are_those_of_the_network(codec):
    net, codes, drawn = tiny_dicode(), codec.encode(film()), torch.Generator().manual_seed(0)
    borders = codes.values.unflatten(0, (3, 3))
    pairs = torch.stack([borders[:-1], borders[1:]], 1)
    made = net.decode(pairs, net.noise(2, drawn), 2, 1.0, 7.5, 0.7, drawn)
    assert same(codec.decode(codes), Film(tuple(shown(joined(made)))))
    assert len(codec.decode(codes)) == 7 and len(codec.decode(codes.first(6))) == 4
    codec.borders = 2
    assert len(codec.decode(codes)) == 8
    codec.seed = 1
    assert not same(codec.decode(codes), Film(tuple(shown(joined(made, 2)))))


def test_codes_decode_from_their_file(codec, tmp_path):
    codes = codec.encode(film())
    codes.save(tmp_path / "x.codes")
    assert same(codec.decode(Codes.load(tmp_path / "x.codes")), codec.decode(codes))
    whole = (tmp_path / "x.codes").read_bytes()
    for cut in (whole[:-5], whole[:-1] + bytes([whole[-1] ^ 1])):
        (tmp_path / "x.codes").write_bytes(cut)
        with pytest.raises(CodesError, match=r"truncated|altered"):
            Codes.load(tmp_path / "x.codes")


def test_budgets_are_rounded_down_to_whole_borders(tmp_path):
    path = dicode_artifact(tmp_path / "d.safetensors")
    for budget, kept in (({}, 12), ({"keep": 0.7}, 6), ({"bytes": 159}, 9), ({"tokens": 9}, 9)):
        assert len(laconic.DiCoDe(artifact=path, **budget).encode(film(3))) == kept
    with pytest.raises(BudgetError, match="keeps whole borders of 3 tokens, two at least; ask for 6, 9"):
        laconic.DiCoDe(artifact=path, keep=0.3).encode(film(3))
    for tokens in (3, 7):
        with pytest.raises(BudgetError, match=f"{tokens} tokens: it keeps whole borders"):
            laconic.DiCoDe(artifact=path).encode(film(3), tokens)
    with pytest.raises(BudgetError, match="tokens=15: there are 12"):
        laconic.DiCoDe(artifact=path).encode(film(3), 15)


def test_what_does_not_fit_is_refused(codec, tmp_path, llama):
    codes = codec.encode(film())
    with pytest.raises(MediaError, match=r"the film has 6 frames and this codec reads clips of 4 .*: 4, 7, 10 frames"):
        codec.encode(Film(film().frames[:6]))
    with pytest.raises(MediaError, match="the film has 1 frames"):
        codec.encode(Film(film().frames[:1]))
    with pytest.raises(MediaError, match="the image is 9 x 8 pixels and this codec reads 8 x 8"):
        codec.encode(film().resize((9, 8)))
    with pytest.raises(MediaError, match=r"reads a laconic\.media\.film\.Film, not Image"):
        codec.encode(film().frames[0])
    with pytest.raises(CodesError, match="were made by one_d_piece, not by dicode"):
        codec.decode(Codes("one_d_piece", codes.artifact, codes.shape, codes.values))
    for values in (codes.values[:5], codes.values[:3], codes.values[:, :2]):
        with pytest.raises(CodesError, match="are no borders of a film, which have 3 of 4 each"):
            codec.decode(Codes("dicode", codes.artifact, codes.shape, values))
    with pytest.raises(CodesError, match="dicode has at most 771"):
        codec.decode(Codes("dicode", codes.artifact, codes.shape, torch.zeros(774, 4)))
    other = laconic.DiCoDe(artifact=dicode_artifact(tmp_path / "o.safetensors", seed=1))
    with pytest.raises(CodesError, match="made with other weights"):
        other.decode(codes)
    for wrong in ({"steps": 0}, {"eta": 2.0}, {"borders": 3}, {"frames": 0}, {"guidance": -1.0}, {"clips": 0}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))}="):
            laconic.DiCoDe(**wrong)
    with pytest.raises(SessionError, match="dicode is a codec of films"):
        laconic.compress(llama, codec).__enter__()


def test_films_are_written_after_a_text(tmp_path, monkeypatch):
    made = laconic.DiCoDe(artifact=dicode_artifact(tmp_path / "l.safetensors", words=16), steps=2, clips=2)
    one = made.generate("red circle left", seed=1)
    assert len(one) == 7 and one.size == (8, 8) and same(one, made.generate("red circle left", seed=1))
    assert not same(one, made.generate("red circle left", seed=2)) and not same(one, made.generate("blue star", seed=1))
    language, given = made.network.language, []
    sample = language.sample
    monkeypatch.setattr(language, "sample", lambda *all_: given.append(all_) or sample(*all_))
    made.generate("red circle left")
    assert given[0][1:3] == (3, 0.01)  # borders, and the factor on the variances
    with pytest.raises(PromptError, match="'unicorn' is none of its words"):
        made.generate("red unicorn")
    made.clips = 4
    with pytest.raises(ValueError, match="clips=4: this language model writes 3 at most"):
        made.generate("red circle")
    with pytest.raises(ArtifactError, match="has no language model; train one with `laconic fit dicode --set start=FILE`"):
        laconic.DiCoDe(artifact=dicode_artifact(tmp_path / "t.safetensors")).generate("red circle")
