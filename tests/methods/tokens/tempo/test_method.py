"""Tempo in a session, and beside one."""

import pytest
import torch
from helpers import vision_tools
from helpers.streaming_tools import embeddings, prompt, stirred, video_testbed
from helpers.visual_fit import check_artifacts
from PIL import Image

from laconic import BudgetError, compress
from laconic.artifact import Artifact, numbers
from laconic.methods.tokens.tempo.film import NotedFilm
from laconic.methods.tokens.tempo.method import Tempo
from laconic.methods.tokens.tempo.network import Notes
from laconic.stream.long_video import ask
from laconic.tasks.video.clips import film
from laconic.tasks.video.questions import pose

DATA = {"layers": 2, "window": 4, "notes": 6}


@pytest.fixture(scope="module")
def host():
    return video_testbed()


@pytest.fixture(scope="module")
def made(host, tmp_path_factory):
    net, path = stirred(Notes(host[0], 2, 6)), tmp_path_factory.mktemp("made") / "net.safetensors"
    Artifact.of("tempo", "trained", host[0], DATA, numbers(net)).save(path)
    return str(path), net


@pytest.fixture(scope="module")
def clip():
    return film(pose("reading", 0, 16)[0])


def test_times_and_notes_stand_where_the_video_was(host, made, clip):
    (model, tokenizer), (path, net) = host, made
    given = prompt(tokenizer, clip)
    read, session = embeddings(model, Tempo(least=2, tokens=18, artifact=path), given)
    table, ids = model.get_input_embeddings(), given["input_ids"][0]
    text = table(ids[ids != model.config.video_token_id])
    own = NotedFilm(net, 4, 2, 18, text)
    own.add(model.model.get_video_features(given["pixel_values_videos"]).pooler_output[0, :-1].view(16, 3, 3, -1))
    soft = own.soft()
    assert 12 <= len(soft) <= 18 and session.stats.visual[0] == len(soft)
    want = torch.cat([text[:2], soft, model.model.image_newline[None], text[2:]])
    torch.testing.assert_close(read, want, rtol=1e-3, atol=1e-4)


def test_budgets_and_what_no_budget_can_meet(host, made, clip):
    given = prompt(host[1], clip)
    for how, tokens in (
        ({"routed": False}, 28),
        ({"routed": False, "tokens": 13}, 12),
        ({"routed": False, "keep": 0.125}, 16),
    ):
        with compress(host[0], Tempo(artifact=made[0], **how)) as session, torch.no_grad():
            host[0](**given)
        assert session.stats.visual[0] == tokens
    with compress(host[0], Tempo(artifact=made[0], tokens=7)), pytest.raises(BudgetError, match="raise it to 8"):
        host[0](**given)


@pytest.mark.parametrize("kept", ["tail", "random"])
def test_other_notes_may_be_read_for_comparison(host, made, clip, kept):
    read, _ = embeddings(host[0], Tempo(artifact=made[0], kept=kept, tokens=20), prompt(host[1], clip))
    head, _ = embeddings(host[0], Tempo(artifact=made[0], tokens=20), prompt(host[1], clip))
    assert read.shape == head.shape and not torch.equal(read, head)


def test_a_clip_of_one_frame_is_one_segment_of_all_notes(host, made, clip):
    _, session = embeddings(host[0], Tempo(artifact=made[0]), prompt(host[1], clip[:1]))
    assert session.stats.visual[0] == 7


def test_a_video_read_as_it_comes_is_answered_as_in_a_session(host, made, clip):
    model, tokenizer = host
    question, options = "When is the sign there?", {"max_new_tokens": 4, "do_sample": False}
    given = prompt(tokenizer, clip, question)
    with compress(model, Tempo(tokens=14, artifact=made[0])):
        said = model.generate(**given, **options)[0, given["input_ids"].shape[1] :]
    images = (Image.fromarray(frame) for frame in clip)
    answer = ask(model, tokenizer, Tempo(limit=14, artifact=made[0]), images, question, at_once=5, **options)
    assert answer == tokenizer.decode(said, skip_special_tokens=True).strip()


def test_images_may_be_the_frames_of_one_video(vlm, tmp_path):
    """On a model that is given them as images; else each is a video of one frame."""
    net, path = stirred(Notes(vlm, 1, 6)), str(tmp_path / "net.safetensors")
    Artifact.of("tempo", "trained", vlm, {"layers": 1, "window": 2, "notes": 6}, numbers(net)).save(path)
    for how, tokens in (("images", 2 * 7), ("video", 3 * 7)):
        _, session = embeddings(vlm, Tempo(frames=how, routed=False, artifact=path), vision_tools.inputs([(3, 9)], images=3))
        assert session.stats.visual[0] == tokens


def test_what_makes_no_sense_is_refused(host, made, clip):
    for wrong, match in (({"least": 0}, "least=0"), ({"kept": "first"}, "kept='first'"), ({"limit": 1}, "limit=1")):
        with pytest.raises(ValueError, match=match):
            Tempo(**wrong)
    with pytest.raises(BudgetError, match="give limit="):
        Tempo(keep=0.5, artifact=made[0]).film(host[0], torch.zeros(1, 32))
    large = stirred(Notes(host[0], 1, 40))
    path = made[0].replace("net.", "large.")
    Artifact.of("tempo", "trained", host[0], {"layers": 1, "window": 4, "notes": 40}, numbers(large)).save(path)
    with (
        compress(host[0], Tempo(artifact=path)),
        pytest.raises(BudgetError, match="41 tokens are more than the 36 of the 4 frames"),
    ):
        host[0](**prompt(host[1], clip))


def test_artifacts_are_checked(host, llama, made, tmp_path):
    path = tmp_path / "net.safetensors"
    Artifact.load(made[0]).save(path)
    check_artifacts(lambda artifact: Tempo(artifact=artifact), path, host[0], llama)
