"""`laconic run --image`, `--video`: answers and figures of images, and what is refused."""

import io
import time
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from helpers.run_keys import COMPARED, KEYS
from helpers.vision_tools import random_vlm
from PIL import Image

import laconic as api
from laconic.families.vision.encoder import layers_of
from laconic.media import load_image
from laconic.method import CATALOGUE, register
from laconic.prompts import media as media
from laconic.stream.assemble import assemble
from laconic.stream.contract import TokenMethod
from laconic.testbed.any_resolution import any_resolution, any_resolution_processor
from laconic.testbed.vlm_model import SPECIALS, VISUAL_TOKENS, build_processor, build_tokenizer

SEEN = {"images", "encoder_seconds", "encoder_seconds_uncompressed", "visual_in", "visual"}
QUESTION = "what color is the circle?"
SHORT = ("-q", QUESTION, "--max-new-tokens", 4)


@pytest.fixture(scope="session")
def vlm(tmp_path_factory) -> str:
    """A saved LLaVA with random weights: 8 decoder layers, 144 visual tokens an image."""
    folder = tmp_path_factory.mktemp("vlm")
    random_vlm().save_pretrained(folder)
    build_processor(build_tokenizer()).save_pretrained(folder)
    return str(folder)


@pytest.fixture
def photo(tmp_path) -> str:
    path = tmp_path / "photo.jpg"
    image(0).save(path)
    return str(path)


def image(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (60, 90, 3), dtype=np.uint8))


@pytest.fixture
def first_half():
    """A token method: before layer 2 the first visual tokens of every image stay."""

    @register("toy_first", site="tokens", modality="image", mechanism="pruning", source="a test", query_aware=False)
    @dataclass(kw_only=True)
    class First(TokenMethod):
        def cuts(self, depth):
            return (2,)

        def cut(self, stream):
            rows = stream.images(0)
            mean = self.allowance(len(rows), stream.hidden.shape[1] - len(rows), stream.entry_bytes)
            return assemble(stream, [rows[: round(self.mean_after(mean, len(rows), 2, stream.depth))]])

    yield "toy_first"
    CATALOGUE.pop("toy_first")


def test_figures_are_those_of_a_session(laconic, vlm, photo):
    found = laconic.json("run", "--model", vlm, "--image", photo, "--method", "snapkv:window=8", "--keep", 0.3, *SHORT)
    assert set(found) == KEYS | SEEN
    model, processor = api.load(vlm)
    prompt = media.build(processor, [load_image(photo)], "", QUESTION)
    ids = torch.tensor([prompt.ids])
    with api.compress(model, api.SnapKV(keep=0.3, window=8)) as session:
        out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=4, do_sample=False, **prompt.inputs)
    assert found["answer"] == processor.tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
    assert found["kv_bytes_end"] == session.stats.kv_bytes and found["prefill_flops"] == session.stats.prefill_flops
    assert (
        found["prompt"]["tokens"] == prompt.tokens == found["prompt"]["context_tokens"] + found["prompt"]["question_tokens"]
    )
    assert found["images"] == [{"file": photo, "frame": 0, "frames": 1, "width": 90, "height": 60}]
    assert found["visual_in"] == VISUAL_TOKENS and found["visual"] == {str(i): VISUAL_TOKENS for i in range(8)}
    assert found["encoder_seconds"] > 0 and found["encoder_seconds_uncompressed"] is None and found["warnings"] == []


@pytest.mark.parametrize("extra", [(), ("--later",)])
@pytest.mark.parametrize("method", [(), ("--method", "snapkv", "--keep", 1.0)])
def test_neutral_runs_agree_with_the_stock_model(laconic, vlm, photo, method, extra):
    found = laconic.json("run", "--model", vlm, "--image", photo, *method, *extra, "--compare", *SHORT)
    assert set(found["compared"]) == COMPARED
    assert found["compared"]["agree"] and found["asked"] == found["achieved"] == 1.0
    for key in ("kv_bytes", "kv_bytes_end", "decode_flops"):
        assert found["compared"][key] == found[key]
    assert found["encoder_seconds_uncompressed"] > 0


def test_the_answer_is_about_the_images(laconic, vlm, tmp_path):
    """Other images, another order, other answers: what is shown reaches the model."""
    paths = [tmp_path / f"{i}.png" for i in range(2)]
    for colour, path in zip(("red", "blue"), paths, strict=True):
        Image.new("RGB", (50, 50), colour).save(path)
    orders = [(0,), (1,), (0, 1), (1, 0), ()]
    found = []
    for order in orders:
        images = [x for i in order for x in ("--image", paths[i])]
        found.append(laconic.json("run", "--model", vlm, *images, "-q", QUESTION, "--max-new-tokens", 8))
    assert len({f["answer"] for f in found}) == len(orders)
    assert [f.get("visual_in") for f in found] == [VISUAL_TOKENS * len(order) or None for order in orders]
    assert set(found[-1]) == KEYS


def test_a_token_method_shortens_what_layers_see(laconic, vlm, photo, first_half):
    """keep=0.625 of 144 over 8 layers: all in 2 layers, half in 6."""
    asked = ("run", "--model", vlm, "--image", photo, "--method", first_half, "--keep", 0.625, *SHORT)
    found = laconic.json(*asked)
    assert found["visual"] == {str(i): VISUAL_TOKENS if i < 2 else VISUAL_TOKENS // 2 for i in range(8)}
    text = found["prompt"]["tokens"] - VISUAL_TOKENS
    assert found["stream"] == {str(i): n + text for i, n in found["visual"].items()}
    assert found["asked"] == found["achieved"] == 0.625
    assert found["prefill_flops"] < found["prefill_flops_full"] and found["kv_bytes"] < found["kv_bytes_full"]


def test_a_token_method_and_a_quantiser(laconic, vlm, photo, first_half):
    """The common budget is the token method's; the quantiser does as its own parameters say."""
    found = laconic.json(
        "run", "--model", vlm, "--image", photo, "--method", first_half, "--keep", 0.625, "--method", "gear", *SHORT
    )
    assert [m["budget"]["keep"] for m in found["methods"]] == [0.625, 1.0]
    assert found["visual"]["7"] == VISUAL_TOKENS // 2
    alone = laconic.json("run", "--model", vlm, "--image", photo, "--method", first_half, "--keep", 0.625, *SHORT)
    assert found["kv_bytes"] < 0.6 * alone["kv_bytes"]


def test_a_cache_method_that_shortens_the_stream(laconic, vlm, photo):
    """FastKV knows nothing of images; how many visual tokens it left on the way is counted all the same."""
    found = laconic.json("run", "--model", vlm, "--image", photo, "--method", "fastkv", "--keep", 0.3, *SHORT)
    counts = [found["visual"][str(i)] for i in range(8)]
    stream = [found["stream"][str(i)] for i in range(8)]
    text = found["prompt"]["tokens"] - VISUAL_TOKENS
    assert counts[0] == VISUAL_TOKENS and counts[-1] < VISUAL_TOKENS
    assert all(n - text <= c <= n for n, c in zip(stream, counts, strict=True))


def test_images_compressed_before_the_question(laconic, vlm, photo):
    """The image is compressed before the question is known: another question finds the same entries."""
    asked = ("run", "--model", vlm, "--image", photo, "--method", "snapkv:window=4", "--tokens", 30, "--later")
    found = laconic.json(*asked, "-q", QUESTION, "--max-new-tokens", 2)
    prompt = found["prompt"]
    assert found["mode"] == "later" and found["budget_tokens"] == prompt["context_tokens"] > VISUAL_TOKENS
    assert found["entries"][0]["max"] == 30 + prompt["question_tokens"]
    longer = laconic.json(*asked, "-q", QUESTION + QUESTION, "--max-new-tokens", 2)
    assert longer["achieved"] == found["achieved"] == pytest.approx(30 / prompt["context_tokens"])


@pytest.mark.parametrize("extra", [(), ("--later",)])
def test_encoder_and_prefill_are_timed_apart(laconic, vlm, photo, monkeypatch, extra):
    """A clock that stands still but in the encoder (5 s) and in the first decoder layer (1 s for many tokens)."""
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    loaded = api.load(vlm)

    def slower(seconds):
        def hook(module, args, kwargs):
            many = kwargs.get("hidden_states", args[0] if args else None)
            now[0] += seconds if many is None or many.shape[1] > 1 else 0.0

        return hook

    model = loaded[0].model
    layers_of(model.vision_tower)[0].register_forward_pre_hook(slower(5.0), with_kwargs=True)
    model.language_model.layers[0].register_forward_pre_hook(slower(1.0), with_kwargs=True)
    monkeypatch.setattr("laconic.cli.question.load", lambda *args, **kwargs: loaded)
    found = laconic.json("run", "--model", vlm, "--image", photo, "--compare", *extra, *SHORT)
    passes = 2 if extra else 1  # image first, then the question
    assert (found["encoder_seconds"], found["prefill_seconds"], found["decode_seconds"]) == (5.0, passes, 0.0)
    assert (found["encoder_seconds_uncompressed"], found["compared"]["prefill_seconds"]) == (5.0, 1.0)


def test_a_folder_of_frames_and_an_animation(laconic, vlm, tmp_path):
    frames = tmp_path / "frames"
    frames.mkdir()
    for i in range(11):
        image(i).save(frames / f"{i}.png")
    found = laconic.json("run", "--model", vlm, "--video", frames, "--frames", 3, *SHORT)
    assert [p["frame"] for p in found["images"]] == [1, 5, 9] and found["visual_in"] == 3 * VISUAL_TOKENS
    gif = tmp_path / "moving.gif"
    image(0).save(gif, save_all=True, append_images=[image(1), image(2)])
    found = laconic.json("run", "--model", vlm, "--video", gif, "--frames", 5, *SHORT)
    assert found["visual_in"] == 3 * VISUAL_TOKENS and "fewer than the 5 asked for" in found["warnings"][0]
    found = laconic.json("run", "--model", vlm, "--image", gif, *SHORT)
    assert found["visual_in"] == VISUAL_TOKENS and "is animated, and only its first frame is shown" in found["warnings"][0]


def test_images_in_crops(laconic, photo, tmp_path):
    """LLaVA-NeXT: a thumbnail and a grid of crops; line ends are placeholders too, and no visual tokens."""
    folder = tmp_path / "next"
    any_resolution(random_vlm()).save_pretrained(folder)
    any_resolution_processor(build_tokenizer()).save_pretrained(folder)
    found = laconic.json(
        "run", "--model", folder, "--image", photo, "--method", "snapkv", "--keep", 0.3, "--compare", *SHORT
    )
    prompt = media.build(api.load(str(folder))[1], [load_image(photo)], "", QUESTION)
    placeholders = prompt.ids.count(SPECIALS.index("<image>"))
    assert found["prompt"]["tokens"] == prompt.tokens
    # 90 x 60 pixels on a canvas of 24 x 24 patches: 16 lines of 24 show the image, each with a line end
    assert found["visual_in"] == VISUAL_TOKENS + 16 * 24 == placeholders - 16


def test_panel(laconic, vlm, photo, first_half, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    shown = laconic("run", "--model", vlm, "--image", photo, "--method", first_half, "--keep", 0.625, "--compare", *SHORT)
    assert shown.exit_code == 0 and shown.stderr == ""
    for text in (
        "images             1: photo.jpg 90 x 60",
        "asked 62.5%, achieved 62.50% of the visual tokens, mean over layers",
        "visual tokens      144 in; 144 in layers 0-1, 72 in layers 2-7",
        "tokens by layer    157 in layers 0-1, 85 in layers 2-7",
        "vision encoder",
        "prefill FLOPs",
        "decode per token",
        "KV bytes at the end",
    ):
        assert text in shown.stdout, text
    assert "of the prompt" not in shown.stdout
    rows = [line.split("  ")[0].strip("│ ") for line in shown.stdout.splitlines()]
    assert rows.index("vision encoder") + 1 == rows.index("prefill") < rows.index("decode per token")


def test_panel_of_two_methods(laconic, vlm, photo, first_half, monkeypatch):
    """What was asked of each, and of what its share is."""
    monkeypatch.setenv("COLUMNS", "120")
    args = ("--method", first_half, "--keep", 0.625, "--method", "gear", "--method", "knorm:keep=0.5")
    shown = laconic("run", "--model", vlm, "--image", photo, *args[:6], *SHORT).stdout
    assert "asked 62.5%, achieved 62.50% of the visual tokens, mean over layers" in shown
    assert "asked own parameters, achieved" in shown and "% of the bytes of the prompt (157 tokens)" in shown
    shown = laconic("run", "--model", vlm, "--image", photo, *args[6:], *SHORT).stdout
    assert "asked 50%, achieved 49.68% of the prompt (157 tokens)" in shown and "visual tokens, mean" not in shown


def test_text_alone_on_a_vision_model(laconic, vlm):
    found = laconic.json("run", "--model", vlm, "-q", QUESTION, "--max-new-tokens", 2, "--compare")
    assert set(found) == KEYS and found["compared"]["agree"]
    inspected = laconic.json("inspect", "--model", vlm, "-q", QUESTION, "--max-new-tokens", 2)
    assert inspected["tokens"] == found["prompt"]["tokens"]


# -- what is refused -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--image", "none.jpg"), ("cannot read none.jpg", "No such file")),
        (("--image", "words.jpg"), ("words.jpg is not an image",)),
        (("--image", "cut.jpg"), ("cut.jpg is broken or cut off",)),
        (("--image", "."), ("is a folder", "--video")),
        (("--video", "."), ("holds no images",)),
        (("--video", "none.mp4"), ("no such file or folder",)),
        (("--frames", 3), ("--frames 3", "--video")),
        (("--image", "good.png", "--prefill-chunk-size", 64), ("--prefill-chunk-size does not go with images",)),
        (("--image", "good.png", "--cache", "file"), ("--cache holds texts",)),
        (("--image", "good.png", "-q", "<image> or <image>?"), ("2 places for images", "1 was given")),
        (("-q", "<image>?"), ("1 place for images", "0 were given")),
        (("--image", "good.png", "--context", "empty.txt", "-q", ""), ("the question is empty",)),
    ],
)
def test_bad_input(laconic, vlm, tmp_path, monkeypatch, args, words):
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "there")
    for name, data in (("words.jpg", b"words"), ("empty.txt", b""), ("cut.jpg", jpeg()[:-400])):
        (tmp_path / "there" / name).write_bytes(data)
    image(0).save("good.png")
    if args == ("--video", "."):
        monkeypatch.chdir(tmp_path)
    question = () if "-q" in args else ("-q", QUESTION)
    line = laconic.bad(2, "run", "--model", vlm, *args, *question)
    assert line.startswith("error: ") and all(word in line for word in words), line


def jpeg() -> bytes:
    buffer = io.BytesIO()
    image(0).save(buffer, "JPEG")
    return buffer.getvalue()


def test_images_for_a_text_model(laconic, model, photo):
    line = laconic.bad(2, "run", "--model", model, "--image", photo, "-q", "Wo?")
    assert "is a llama model, which laconic cannot show images" in line


def test_a_template_without_images(laconic, vlm, photo, tmp_path):
    from transformers import AutoProcessor

    copy = tmp_path / "copy"
    random_vlm().save_pretrained(copy)
    processor = AutoProcessor.from_pretrained(vlm)
    processor.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    processor.save_pretrained(copy)
    assert "has no support for images" in laconic.bad(2, "run", "--model", copy, "--image", photo, *SHORT)


def test_a_budget_below_one_visual_token(laconic, vlm, photo, first_half):
    line = laconic.bad(2, "run", "--model", vlm, "--image", photo, "--method", first_half, "--tokens", 1, *SHORT)
    assert "cannot be reached" in line and "keep=" in line
    line = laconic.bad(2, "run", "--model", vlm, "--image", photo, "--method", first_half, "--keep", 0.001, *SHORT)
    assert "at least one must stay" in line


def test_a_method_that_makes_a_thumbnail_of_a_video_gets_it(laconic, vlm, tmp_path):
    """TS-LLaVA: frames as the encoder sees them, evenly sampled, and all tokens of their thumbnail."""
    for i in range(6):
        image(i).save(tmp_path / f"{i}.png")
    run = ("run", "--model", vlm, "--video", str(tmp_path), "--frames", 3, *SHORT)
    found = laconic.json(*run, "--method", "ts_llava:samples=20")
    sizes = [(shown["file"].rpartition("/")[2], shown["width"], shown["height"]) for shown in found["images"]]
    assert sizes == [("1.png", 96, 96), ("3.png", 96, 96), ("5.png", 96, 96), ("1.png, thumbnail", 96, 96)]
    assert found["visual_in"] == 4 * VISUAL_TOKENS and set(found["visual"].values()) == {20 + VISUAL_TOKENS}
    plain = laconic.json(*run, "--method", "ts_llava:thumbnails=0,samples=20")
    assert [shown["width"] for shown in plain["images"]] == [90] * 3 and set(plain["visual"].values()) == {20}


def test_inspect_shows_the_thumbnail(laconic, vlm, tmp_path):
    for i in range(2):
        image(i).save(tmp_path / f"{i}.png")
    options = (
        "--model",
        vlm,
        "--video",
        str(tmp_path),
        "--method",
        "ts_llava:samples=20",
        "--out",
        str(tmp_path / "p.html"),
    )
    found = laconic.json("inspect", *options, "-q", QUESTION)
    assert [shown["file"].rpartition("/")[2] for shown in found["images"]] == ["0.png", "1.png", "0.png, thumbnail"]
