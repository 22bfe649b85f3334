"""VideoStreaming in a session, and beside one."""

import pytest
import torch
from helpers import vision_tools
from helpers.streaming_tools import embeddings, live_numbers, prompt, stirred, video_testbed
from helpers.visual_fit import check_artifacts
from PIL import Image

from laconic import BudgetError, compress
from laconic.artifact import Artifact, numbers
from laconic.methods.tokens.videostreaming.film import StreamedFilm
from laconic.methods.tokens.videostreaming.method import VideoStreaming
from laconic.methods.tokens.videostreaming.network import Streaming
from laconic.stream.long_video import ask
from laconic.tasks.video.clips import film
from laconic.tasks.video.questions import pose

DATA = {"layers": 2, "length": 4, "summary": 4, "propagate": True}


@pytest.fixture(scope="module")
def host():
    return video_testbed()


@pytest.fixture(scope="module")
def made(host, tmp_path_factory):
    net, path = stirred(Streaming(host[0], 2, 4)), tmp_path_factory.mktemp("made") / "net.safetensors"
    Artifact.of("videostreaming", "trained", host[0], DATA, numbers(net)).save(path)
    return str(path), net


@pytest.fixture(scope="module")
def clip():
    return film(pose("reading", 0, 16)[0])


def test_the_chosen_memories_stand_where_the_video_was(host, made, clip):
    (model, tokenizer), (path, net) = host, made
    given = prompt(tokenizer, clip)
    read, session = embeddings(model, VideoStreaming(select=2, artifact=path), given)
    table, ids = model.get_input_embeddings(), given["input_ids"][0]
    text = table(ids[ids != model.config.video_token_id])
    own = StreamedFilm(net, 4, 2, text)
    own.add(model.model.get_video_features(given["pixel_values_videos"]).pooler_output[0, :-1].view(16, 3, 3, -1))
    soft = own.soft()
    assert len(soft) == 34 and session.stats.visual[0] == 34
    want = torch.cat([text[:2], soft, model.model.image_newline[None], text[2:]])
    torch.testing.assert_close(read, want, rtol=1e-3, atol=1e-4)


def test_a_budget_says_how_many_memories(host, made, clip):
    given = prompt(host[1], clip)
    for budget, tokens in (({}, 68), ({"select": 1}, 17), ({"keep": 0.25}, 34), ({"tokens": 17}, 17), ({"select": 9}, 68)):
        with compress(host[0], VideoStreaming(artifact=made[0], **budget)) as session, torch.no_grad():
            host[0](**given)
        assert session.stats.visual[0] == tokens
    with (
        compress(host[0], VideoStreaming(artifact=made[0], tokens=16)),
        pytest.raises(BudgetError, match="takes 17"),
    ):
        host[0](**given)


def test_a_clip_of_one_frame_and_one_that_ends_within_a_clip(host, made, clip):
    for frames, tokens in ((1, 5), (6, 17 + 9)):
        _, session = embeddings(host[0], VideoStreaming(artifact=made[0]), prompt(host[1], clip[:frames]))
        assert session.stats.visual[0] == tokens
    _, session = embeddings(host[0], VideoStreaming(tokens=5, artifact=made[0]), prompt(host[1], clip[:1]))
    assert session.stats.visual[0] == 5  # a memory of one frame is no larger than that


def test_images_may_be_the_frames_of_one_video(vlm, tmp_path):
    """On a model that is given them as images; else each is a video of one frame."""
    net, path = stirred(Streaming(vlm, 1, 4)), str(tmp_path / "net.safetensors")
    Artifact.of("videostreaming", "trained", vlm, DATA | {"layers": 1, "length": 2}, numbers(net)).save(path)
    for how, tokens in (("images", 1 + 2 * 4 + 1 + 4), ("video", 3 * 5)):
        _, session = embeddings(vlm, VideoStreaming(frames=how, artifact=path), vision_tools.inputs([(3, 9)], images=3))
        assert session.stats.visual[0] == tokens


def test_a_video_read_as_it_comes_is_answered_as_in_a_session(host, made, clip):
    (model, tokenizer), method = host, VideoStreaming(select=2, artifact=made[0])
    question, options = "When is the sign there?", {"max_new_tokens": 4, "do_sample": False}
    given = prompt(tokenizer, clip, question)
    with compress(model, method):
        said = model.generate(**given, **options)[0, given["input_ids"].shape[1] :]
    for at_once in (3, 16):
        images = (Image.fromarray(frame) for frame in clip)
        answer = ask(model, tokenizer, method, images, question, at_once=at_once, **options)
        assert answer == tokenizer.decode(said, skip_special_tokens=True).strip()


def test_hours_leave_four_vectors_a_frame_and_a_code_a_clip(made):
    """Two hours at a frame a second are 7,200 frames; the frames themselves never wait in numbers."""
    reader, held = StreamedFilm(made[1], 4, 4, torch.randn(3, 32)), []
    for _ in range(60):
        reader.add(torch.randn(6, 3, 3, 32))
        held.append(live_numbers(reader))
    waiting = [6 * (i + 1) % 4 * 9 * 32 for i in range(60)]
    assert held == [(6 * (i + 1) // 4) * 17 * 32 + waiting[i] for i in range(60)]


def test_what_makes_no_sense_is_refused(host, made, clip):
    with pytest.raises(BudgetError, match="give one of them"):
        VideoStreaming(select=2, keep=0.5)
    with pytest.raises(ValueError, match="select=0"):
        VideoStreaming(select=0)
    with pytest.raises(BudgetError, match="give select="):
        VideoStreaming(keep=0.5, artifact=made[0]).film(host[0], torch.zeros(1, 32))
    large = stirred(Streaming(host[0], 1, 9))
    path = made[0].replace("net.", "large.")
    Artifact.of("videostreaming", "trained", host[0], DATA | {"layers": 1, "summary": 9}, numbers(large)).save(path)
    with (
        compress(host[0], VideoStreaming(artifact=path)),
        pytest.raises(BudgetError, match="37 tokens are more than the 36 of the 4 frames"),
    ):
        host[0](**prompt(host[1], clip))


def test_artifacts_are_checked(host, llama, made, tmp_path):
    path = tmp_path / "net.safetensors"
    Artifact.load(made[0]).save(path)
    check_artifacts(lambda artifact: VideoStreaming(artifact=artifact), path, host[0], llama)
    Artifact.of("videostreaming", "trained", host[0], DATA | {"layers": 1}, numbers(made[1])).save(path)
    with pytest.raises(Exception, match="do not fit"):
        compress(host[0], VideoStreaming(artifact=str(path)))
