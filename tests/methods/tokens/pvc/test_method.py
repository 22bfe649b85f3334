"""PVC in a session, and beside one."""

import pytest
import torch
from helpers import vision_tools
from helpers.streaming_tools import embeddings, prompt, stirred, video_testbed
from helpers.visual_fit import check_artifacts
from PIL import Image

from laconic import BudgetError, compress
from laconic.artifact import Artifact, numbers
from laconic.methods.tokens.pvc.method import PVC
from laconic.methods.tokens.pvc.network import Progressive
from laconic.stream.long_video import ask
from laconic.tasks.video.clips import film
from laconic.tasks.video.questions import pose

DATA = {"layers": 2, "blocks": [3, 6], "window": 64, "order": "causal", "steps": True}


@pytest.fixture(scope="module")
def host():
    return video_testbed()


def saved(model, path, data):
    torch.manual_seed(0)
    net = stirred(Progressive(model, data["layers"], data["blocks"], data["window"], data["order"], data["steps"]))
    Artifact.of("pvc", "trained", model, data, numbers(net)).save(path)
    return str(path), net


@pytest.fixture(scope="module")
def made(host, tmp_path_factory):
    return saved(host[0], tmp_path_factory.mktemp("made") / "net.safetensors", DATA)


@pytest.fixture(scope="module")
def clip():
    return film(pose("direction", 0, 8)[0])


def test_tokens_of_frames_stand_where_the_video_was(host, made, clip):
    (model, tokenizer), (path, net) = host, made
    given = prompt(tokenizer, clip)
    read, session = embeddings(model, PVC(block=3, artifact=path), given)
    states = model.model.vision_tower(given["pixel_values_videos"][0], output_hidden_states=True).hidden_states
    tokens, _ = net(model.model.vision_tower, states[net.first][None], 3)
    table, ids = model.get_input_embeddings(), given["input_ids"][0]
    text = table(ids[ids != model.config.video_token_id])
    want = torch.cat([text[:2], tokens[0].flatten(0, 1), model.model.image_newline[None], text[2:]])
    torch.testing.assert_close(read, want, rtol=1e-3, atol=1e-4)
    assert session.stats.visual[0] == 32


def test_a_still_image_is_a_video_of_repeats(vlm, tmp_path):
    data = DATA | {"blocks": [4, 6]}
    path, net = saved(vlm, tmp_path / "net.safetensors", data)
    given = vision_tools.inputs([(3, 9)], images=2)
    read, session = embeddings(vlm, PVC(block=4, repeats=3, artifact=path), given)
    assert session.stats.visual[0] == 2 * 3 * 9
    states = vlm.model.vision_tower(given["pixel_values"], output_hidden_states=True).hidden_states[net.first]
    for image in range(2):
        tokens, _ = net(vlm.model.vision_tower, states[image][None, None].expand(1, 3, -1, -1), 4)
        torch.testing.assert_close(read[3 + 27 * image : 30 + 27 * image], tokens[0].flatten(0, 1), rtol=1e-3, atol=1e-3)
    with (
        compress(vlm, PVC(block=4, repeats=17, artifact=path)),
        pytest.raises(BudgetError, match="153 tokens are more"),
    ):
        vlm(**given)


def test_a_budget_takes_the_smallest_block_that_fits(host, made, clip):
    given = prompt(host[1], clip)
    for how, tokens in (({}, 8), ({"keep": 0.5}, 32), ({"tokens": 31}, 8)):
        with compress(host[0], PVC(artifact=made[0], **how)) as session, torch.no_grad():
            host[0](**given)
        assert session.stats.visual[0] == tokens
    with compress(host[0], PVC(artifact=made[0], tokens=7)), pytest.raises(BudgetError, match="makes 8 of it; raise it"):
        host[0](**given)


def test_a_clip_of_one_frame_is_a_still_image(host, made, clip):
    _, session = embeddings(host[0], PVC(block=3, repeats=2, artifact=made[0]), prompt(host[1], clip[:1]))
    assert session.stats.visual[0] == 8
    with (
        compress(host[0], PVC(block=3, artifact=made[0])),
        pytest.raises(BudgetError, match="16 tokens are more"),
    ):
        host[0](**prompt(host[1], clip[:1]))
    _, session = embeddings(host[0], PVC(repeats=2, tokens=7, artifact=made[0]), prompt(host[1], clip[:1]))
    assert session.stats.visual[0] == 2  # every repeat counts: two of four tokens are more than seven


def test_images_may_be_the_frames_of_one_video(vlm, tmp_path):
    """On a model that is given them as images; else each is a still image."""
    path, _ = saved(vlm, tmp_path / "net.safetensors", DATA | {"blocks": [4]})
    for how, tokens in (("images", 3 * 9), ("video", 3 * 2 * 9)):
        given = vision_tools.inputs([(3, 9)], images=3)
        _, session = embeddings(vlm, PVC(frames=how, repeats=2, artifact=path), given)
        assert session.stats.visual[0] == tokens


def test_a_video_read_as_it_comes_is_answered_as_in_a_session(host, made, clip):
    model, tokenizer = host
    question, options = "When is the sign there?", {"max_new_tokens": 4, "do_sample": False}
    given, method = prompt(tokenizer, clip, question), PVC(block=3, artifact=made[0])
    with compress(model, method):
        said = model.generate(**given, **options)[0, given["input_ids"].shape[1] :]
    images = (Image.fromarray(frame) for frame in clip)
    answer = ask(model, tokenizer, method, images, question, at_once=3, **options)
    assert answer == tokenizer.decode(said, skip_special_tokens=True).strip()
    short = PVC(limit=5, artifact=made[0])
    compress(model, short)
    seen = short.film(model, torch.zeros(1, 32))
    assert (seen.block, seen.most) == (6, 5)


def test_the_layers_that_run_again_are_counted(host, made, clip):
    """line 8: the decoder's FLOPs are those of its tokens, and the method's own are added to them"""
    given = prompt(host[1], clip)
    with torch.inference_mode():
        for method, more in ((PVC(block=3, artifact=made[0]), True), (None, False)):
            with compress(host[0], *filter(None, [method]), count_flops=True) as session:
                host[0](**given)
            assert (session.stats.prompt_flops > session.stats.prefill_flops) is more


def test_what_makes_no_sense_is_refused(host, made):
    with pytest.raises(BudgetError, match="give one of them"):
        PVC(block=3, keep=0.5)
    with pytest.raises(ValueError, match="repeats=0"):
        PVC(repeats=0)
    with pytest.raises(ValueError, match="block=2: this artifact has 3, 6"):
        compress(host[0], PVC(block=2, artifact=made[0]))
    with pytest.raises(BudgetError, match="give limit= and block="):
        PVC(keep=0.5, artifact=made[0]).film(host[0], torch.zeros(1, 32))


def test_artifacts_are_checked(host, llama, made, tmp_path):
    path = tmp_path / "net.safetensors"
    Artifact.load(made[0]).save(path)
    check_artifacts(lambda artifact: PVC(artifact=artifact), path, host[0], llama)
