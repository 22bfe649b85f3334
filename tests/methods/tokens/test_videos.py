"""What holds for every method that is meant for videos, on the classes that read them."""

import pytest
import torch
from helpers.video_tools import METHODS, kept_cells
from helpers.vision_zoo import CASES, VIDEO, ZooImage, numbers

import laconic

VIDEOS = ["llava_onevision", "qwen2_5_vl", "qwen3_vl"]
every_method = pytest.mark.parametrize("method", sorted(METHODS))
every_class = pytest.mark.parametrize("name", VIDEOS)


def seen_by(model, given, *methods):
    """The session after a plain call, its logits, and the positions that the first layer runs at."""
    found = []
    layer = model.base_model.language_model.layers[0]
    with laconic.compress(model, *methods) as session, torch.no_grad():
        handle = layer.register_forward_pre_hook(
            lambda m, args, kw: found.append(kw["position_embeddings"]), with_kwargs=True
        )
        logits = model(**given).logits
        handle.remove()
    return session, logits, found[0]


@every_class
@every_method
def test_kept_tokens_and_text_stay_at_their_positions(method, name):
    case = CASES[name]
    model, given = case.build(), case.inputs([[case.image(1, video=4)]])
    _, _, whole = seen_by(model, given)
    deltas = getattr(model.base_model, "rope_deltas", None)
    session, _, cut = seen_by(model, given, laconic.create_method(f"{method}:positions=gather", keep=0.5))
    kept = session.trace.events[0].stream[0]
    assert len(kept) < given["input_ids"].shape[1]
    for ours, theirs in zip(cut, whole, strict=True):
        torch.testing.assert_close(ours, theirs[..., kept, :], rtol=1e-6, atol=1e-6)
    assert deltas is None or torch.equal(deltas, model.base_model.rope_deltas)


@every_class
@every_method
def test_decoding_equals_recomputing(method, name):
    case = CASES[name]
    model, given = case.build(), case.inputs([[case.image(1, video=4)]])
    chosen = laconic.create_method(f"{method}:positions=gather", keep=0.5)
    with laconic.compress(model, chosen):
        out = model.generate(**given, max_new_tokens=4, do_sample=False, output_logits=True, return_dict_in_generate=True)
    more = out.sequences[:, given["input_ids"].shape[1] :]
    longer = given | {"input_ids": out.sequences, "attention_mask": torch.ones_like(out.sequences)}
    if "mm_token_type_ids" in given:
        longer["mm_token_type_ids"] = torch.cat([given["mm_token_type_ids"], torch.zeros_like(more)], 1)
    _, logits, _ = seen_by(model, longer, chosen)
    torch.testing.assert_close(torch.cat(out.logits), logits[0, -5:-1], rtol=1e-4, atol=1e-4)


@every_class
@every_method
def test_every_video_is_treated_by_itself(method, name):
    """In published counts: what one keeps does not depend on another in the row, nor on padding."""
    case = CASES[name]
    model, videos = (
        case.build(blind=True),
        [ZooImage(list(numbers(i, 4, *(4, 4) if "llava" in name else (6, 8))), video=True) for i in range(2)],
    )
    setting = {"evs": "evs:rate=0.5", "fastvid": "fastvid:ratio=0.5"}.get(method, f"{method}:keep=0.5")

    def kept(rows, row):
        given = case.inputs(rows)
        session, _, _ = seen_by(model, given, laconic.create_method(setting))
        return kept_cells(case, rows[row], given, session, row)

    alone = [kept([[one]], 0)[0] for one in videos]
    assert kept([videos], 0) == alone
    assert kept([[videos[1]], videos], 1) == alone


@every_method
def test_frames_without_tokens_are_accepted(method):
    """Between the timestamps of Qwen3-VL: a still scene after its first frame, under a budget below one token a frame."""
    case = CASES["qwen3_vl"]
    model, frame = case.build(blind=True), numbers(1, 6, 8)
    still = ZooImage([frame] * 6, video=True)
    given = case.inputs([[still]])
    setting = {"tokens": 12 if method == "evs" else 3}
    session, logits, _ = seen_by(model, given, laconic.create_method(method, **setting))
    (kept,) = kept_cells(case, [still], given, session)
    assert len(kept) == next(iter(setting.values())) and len({frame for _, frame, _, _ in kept}) < 6
    assert bool(logits.isfinite().all())
    text = (given["input_ids"][0] != VIDEO).nonzero()[:, 0].tolist()
    assert set(text) <= set(session.trace.events[0].stream[0].tolist())


@every_method
def test_frames_given_as_images(method):
    """InternVL."""
    case = CASES["internvl"]
    frames = [case.image(i) for i in range(6)]
    given = case.inputs([frames])
    session, _, _ = seen_by(case.build(), given, laconic.create_method(f"{method}:frames=images", keep=0.5))
    assert sum(map(len, kept_cells(case, frames, given, session))) == 12
