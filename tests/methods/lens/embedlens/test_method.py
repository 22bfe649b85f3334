"""EmbedLens's interventions on random models; numbers are the lines of the card's "must show"."""

import pytest
import torch
from helpers.vision_tools import IMAGE, inputs, laconic_hooks
from helpers.vision_zoo import CASES

from laconic import ArtifactError, BudgetError, SnapKV, UnsupportedModelError, compress
from laconic.methods.lens.embedlens.method import EmbedLens
from laconic.methods.lens.embedlens.readings import CLASSES, Anchors, nearest

TEXTS = [(3, 9), (8, 2)]


@pytest.fixture(scope="module")
def anchors(vlm):
    """Words that mark a part of the visual tokens of `inputs(TEXTS)` as dead and some as sinks."""
    features = vlm.model.get_image_features(inputs(TEXTS)["pixel_values"]).pooler_output
    ids = nearest(torch.cat(list(features)), vlm.get_input_embeddings().weight)[1]
    order = ids.flatten().bincount().argsort(descending=True).tolist()
    for dead in order:
        kinds = [Anchors(dead=(dead,)).classify(part) for part in ids.split(144)]
        shares = [(k == CLASSES.index("dead")).float().mean().item() for k in kinds]
        if all(0.02 < share < 0.45 for share in shares):
            return Anchors(dead=(dead,))
    raise AssertionError("no word is near a part of the tokens")


def kinds_of(vlm, anchors, given):
    """Token numbers of class `dead` in every row."""
    features = vlm.model.get_image_features(given["pixel_values"]).pooler_output
    found = []
    for row, x in enumerate(features):
        dead = anchors.classify(nearest(x, vlm.get_input_embeddings().weight)[1]) == CLASSES.index("dead")
        found.append((given["input_ids"][row] == IMAGE).nonzero()[:, 0][dead].tolist())
    return found


def answer(vlm, given, method, new=4):
    with compress(vlm, method) as session:
        out = vlm.generate(**given, max_new_tokens=new, do_sample=False, output_logits=True, return_dict_in_generate=True)
    return torch.stack(out.logits), session


@pytest.mark.parametrize("texts", [[(3, 9)], TEXTS])
@pytest.mark.parametrize(
    "settings", [{}, {"skip": ""}, {"entry": 0}, {"prune": "", "control": "others"}, {"keep": 1.0, "entry": 3}]
)
def test_3_asking_nothing_changes_nothing(vlm, texts, settings):
    given = inputs(texts)
    plain = vlm.generate(**given, max_new_tokens=4, do_sample=False, output_logits=True, return_dict_in_generate=True)
    logits, session = answer(vlm, given, EmbedLens(**settings))
    torch.testing.assert_close(logits, torch.stack(plain.logits), rtol=1e-4, atol=1e-4)
    assert laconic_hooks(vlm) == [] and session.stats.achieved == 1.0


def masked(vlm, given, row, gone):
    """Last logits of one row when the tokens `gone` are masked out of every layer's attention; positions stay."""
    real = given["attention_mask"][row] == 1
    ids = given["input_ids"][row : row + 1, real]
    stack, n = vlm.model.language_model, ids.shape[1]
    gone = [g - int((~real).sum()) for g in gone]
    x = stack.embed_tokens(ids)
    x[0, (ids[0] == IMAGE).nonzero()[:, 0]] = vlm.model.get_image_features(
        given["pixel_values"][row : row + 1]
    ).pooler_output[0]
    mask = torch.full((n, n), float("-inf")).triu(1)
    mask[:, gone] = float("-inf")
    mask[gone, gone] = 0.0  # a row without any column would be nan
    phases = stack.rotary_emb(x, torch.arange(n)[None])
    for layer in stack.layers:
        x = layer(x, attention_mask=mask[None, None], position_embeddings=phases)
    return vlm.lm_head(stack.norm(x))[0, -1]


def test_6_prune_keeps_positions_and_shortens_every_layer(vlm, anchors):
    given = inputs(TEXTS)
    dead = kinds_of(vlm, anchors, given)
    logits, session = answer(vlm, given, EmbedLens(prune="dead", anchors=anchors), 1)
    for row in range(2):
        assert len(dead[row]) > 2
        torch.testing.assert_close(logits[0, row], masked(vlm, given, row, dead[row]), rtol=1e-3, atol=1e-3)
        for layer in range(8):
            kept = session.kept(layer, row=row).tolist()
            first = int((given["attention_mask"][row] == 0).sum())
            assert kept == [n for n in range(first, given["input_ids"].shape[1]) if n not in dead[row]]


def test_5_the_matched_control_takes_as_many_others(vlm, anchors):
    given = inputs(TEXTS)
    dead = kinds_of(vlm, anchors, given)
    gone = []
    for seed in (0, 0, 1):
        _, session = answer(vlm, given, EmbedLens(prune="dead", control="matched", seed=seed, anchors=anchors), 1)
        rows = [set((given["input_ids"][row] == IMAGE).nonzero()[:, 0].tolist()) for row in range(2)]
        gone.append([rows[row] - set(session.kept(0, row=row).tolist()) for row in range(2)])
        for row in range(2):
            assert len(gone[-1][row]) == len(dead[row]) and not gone[-1][row] & set(dead[row])
    assert gone[0] == gone[1] != gone[2]


def test_others_leave_and_the_classes_stay(vlm, anchors):
    given = inputs(TEXTS)
    dead = kinds_of(vlm, anchors, given)
    _, session = answer(vlm, given, EmbedLens(prune="dead", control="others", anchors=anchors), 1)
    for row in range(2):
        kept = [n for n in session.kept(5, row=row).tolist() if given["input_ids"][row, n] == IMAGE]
        assert kept == dead[row]


@pytest.mark.parametrize("control", ["targets", "matched", "others"])
def test_without_a_token_of_the_classes_nothing_is_removed(vlm, control):
    given = inputs([(3, 9)])
    _, session = answer(vlm, given, EmbedLens(prune="sinks", control=control, anchors=Anchors()), 1)
    assert session.stats.visual == dict.fromkeys(range(8), 144.0)


def layers_seen(vlm, given, method=None):
    """Hidden states before every layer, and the logits."""
    states, handles = [], []
    for layer in vlm.model.language_model.layers:
        take = lambda m, args, kwargs: states.append((args[0] if args else kwargs["hidden_states"]).clone())  # noqa: E731
        handles.append(layer.register_forward_pre_hook(take, with_kwargs=True))
    take = lambda m, args, out: states.append((out[0] if isinstance(out, tuple) else out).clone())  # noqa: E731
    handles.append(vlm.model.language_model.layers[-1].register_forward_hook(take))
    try:
        if method is None:
            logits = vlm(**given).logits
        else:
            with compress(vlm, method):
                logits = vlm(**given).logits
    finally:
        for handle in handles:
            handle.remove()
    return states, logits


ALL = "+".join(f"{n / 2}" for n in range(16))


@pytest.mark.parametrize("target", ["visual", "dead"])
def test_4_with_all_sub_layers_skipped_a_token_stays_its_embedding(vlm, anchors, target):
    given = inputs(TEXTS)
    method = EmbedLens(skip=ALL, skip_target=target, anchors=anchors)
    states, logits = layers_seen(vlm, given, method)
    dead = kinds_of(vlm, anchors, given)
    for row in range(2):
        visual = (given["input_ids"][row] == IMAGE).nonzero()[:, 0].tolist()
        own = visual if target == "visual" else dead[row]
        others = [n for n in visual if n not in own]
        for state in states[1:]:
            torch.testing.assert_close(state[row, own], states[0][row, own], rtol=0, atol=0)
            assert not others or bool((state[row, others] - states[0][row, others]).abs().amax(-1).gt(1e-4).all())
    _, usual = layers_seen(vlm, given)
    assert not torch.allclose(usual[:, -1], logits[:, -1], atol=1e-3)
    changed = dict(given) | {"pixel_values": given["pixel_values"] + 1.0}
    assert not torch.allclose(layers_seen(vlm, changed, method)[1][:, -1], logits[:, -1], atol=1e-3)  # they are still read


def test_one_sub_layer_is_skipped_only_for_its_targets(vlm):
    given = inputs([(3, 9)])
    states, _ = layers_seen(vlm, given, EmbedLens(skip="1.5+2", skip_target="visual"))
    plain, _ = layers_seen(vlm, given)
    layers = vlm.model.language_model.layers
    torch.testing.assert_close(states[1], plain[1])
    visual, text = slice(3, 147), [0, 1, 2]
    phases = vlm.model.language_model.rotary_emb(plain[1], torch.arange(156)[None])
    mask = torch.full((156, 156), float("-inf")).triu(1)[None, None]
    after, _ = layers[1].self_attn(layers[1].input_layernorm(plain[1]), position_embeddings=phases, attention_mask=mask)
    torch.testing.assert_close(states[2][0, visual], (plain[1] + after)[0, visual], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(states[2][0, text], plain[2][0, text], rtol=1e-4, atol=1e-4)
    after_two = states[2] + layers[2].mlp(layers[2].post_attention_layernorm(states[2]))
    torch.testing.assert_close(states[3][0, visual], after_two[0, visual], rtol=1e-4, atol=1e-4)


def test_skipping_ends_with_the_prompt(vlm):
    """Decoded tokens are not targets, and neither is text."""
    ids = inputs([(3, 9)])["input_ids"]
    text = ids[ids != IMAGE][None]
    method = EmbedLens(skip=ALL, skip_target="visual")
    with compress(vlm, method):
        vlm.generate(**inputs([(3, 9)]), max_new_tokens=2, do_sample=False)
        skipped = vlm(input_ids=text, past_key_values=None).logits
    torch.testing.assert_close(skipped, vlm(input_ids=text).logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("entry", [1, 4, 7])
@pytest.mark.parametrize("prune", ["", "dead"])
def test_7_injection_stores_no_images_below(vlm, anchors, entry, prune):
    given = inputs(TEXTS)
    dead = kinds_of(vlm, anchors, given) if prune else [[], []]
    logits, session = answer(vlm, given, EmbedLens(entry=entry, prune=prune, anchors=anchors if prune else None), 1)
    for row in range(2):
        visual = (given["input_ids"][row] == IMAGE).nonzero()[:, 0].tolist()
        expected = by_hand(vlm, given, row, entry, dead[row])
        torch.testing.assert_close(logits[0, row], expected, rtol=1e-3, atol=1e-3)
        for layer in range(8):
            kept = [n for n in session.kept(layer, row=row).tolist() if n in visual]
            assert kept == ([] if layer < entry else [n for n in visual if n not in dead[row]])
    if not prune:
        assert session.stats.visual == {i: 0.0 if i < entry else 144.0 for i in range(8)}
        assert session.stats.achieved == pytest.approx((8 - entry) / 8)


def by_hand(vlm, given, row, entry, gone):
    """Only text through the layers before `entry`, at its own positions; then text and images."""
    real = given["attention_mask"][row] == 1
    first, ids = int((~real).sum()), given["input_ids"][row : row + 1, real]
    stack, n = vlm.model.language_model, ids.shape[1]
    raw = stack.embed_tokens(ids)
    visual = (ids[0] == IMAGE).nonzero()[:, 0]
    raw[0, visual] = vlm.model.get_image_features(given["pixel_values"][row : row + 1]).pooler_output[0]
    keep = torch.tensor([i for i in range(n) if i not in visual.tolist()])
    x = raw[:, keep]
    for i, layer in enumerate(stack.layers):
        if i == entry:
            whole = raw.clone()
            whole[:, keep] = x
            keep = torch.tensor([i for i in range(n) if i + first not in gone])
            x = whole[:, keep]
        mask = torch.full((len(keep), len(keep)), float("-inf")).triu(1)[None, None]
        x = layer(x, attention_mask=mask, position_embeddings=stack.rotary_emb(x, keep[None]))
    return vlm.lm_head(stack.norm(x))[0, -1]


def test_7_text_alone_and_the_answer_continue_from_there(vlm):
    ids = torch.randint(10, 400, (1, 20))
    plain = vlm(input_ids=ids).logits
    with compress(vlm, EmbedLens(entry=4)):
        torch.testing.assert_close(vlm(input_ids=ids).logits, plain, rtol=1e-4, atol=1e-4)
    logits, session = answer(vlm, inputs([(3, 9)]), EmbedLens(entry=4), 5)
    assert [layer.stored for layer in session.cache.compressed()] == [12 + 4] * 4 + [156 + 4] * 4 and len(logits) == 5


def test_exit_drops_all_visual_tokens_and_a_cache_method_may_follow(vlm):
    with compress(vlm, EmbedLens(entry=2, exit=5), SnapKV(tokens=40, window=4)) as session:
        vlm.generate(**inputs([(3, 9)]), max_new_tokens=1, do_sample=False)
    assert session.stats.visual == {i: 144.0 if 2 <= i < 5 else 0.0 for i in range(8)}
    assert [layer.stored for layer in session.cache.compressed()] == [12, 12, 40, 40, 40, 12, 12, 12]


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"keep": 0.5}, BudgetError, "classes decide what goes"),
        ({"prune": "sleepy"}, ValueError, "'sleepy' is not in"),
        ({"control": "none"}, ValueError, "choose 'targets', 'matched' or 'others'"),
        ({"skip": "1.25"}, ValueError, "'1.25' is not a sub-layer"),
        ({"skip": "-1"}, ValueError, "is not a sub-layer"),
        ({"entry": 3, "exit": 3}, ValueError, "must come after entry=3"),
        ({"anchors": Anchors(), "artifact": "x"}, ValueError, "not both"),
    ],
)
def test_settings_that_make_no_sense(given, error, message):
    with pytest.raises(error, match=message):
        EmbedLens(**given)


def test_what_a_model_cannot_do(vlm, anchors):
    with pytest.raises(ArtifactError, match="none is shipped"):
        compress(vlm, EmbedLens(prune="dead"))
    with pytest.raises(ValueError, match=r"layers 0\.\.7"):
        compress(vlm, EmbedLens(skip="8", skip_target="visual"))
    with compress(vlm, EmbedLens(prune="visual")), pytest.raises(BudgetError, match="take out all 144 visual tokens"):
        vlm(**inputs([(3, 9)]))
    with (
        compress(vlm, EmbedLens(prune="alive", control="matched", anchors=anchors)),
        pytest.raises(BudgetError, match="not as many"),
    ):
        vlm(**inputs(TEXTS))


@pytest.mark.parametrize("name", ["llava", "llava_next", "llava_onevision", "internvl", "qwen2_5_vl", "qwen3_vl"])
def test_other_families(name):
    case = CASES[name]
    model, image = case.build(), case.image(0)
    given = case.inputs([[image]])
    tokens = sum(cell is not None for cell in case.cells(image))
    words = model.get_input_embeddings().weight
    seen = []
    handle = model.model.language_model.layers[0].register_forward_pre_hook(lambda m, args: seen.append(args[0]))
    plain = model(**given).logits
    handle.remove()
    visual = given["input_ids"][0] == 90
    ids = nearest(seen[0][0, visual], words)[1]
    for anchor in ids.flatten().bincount().argsort(descending=True).tolist():
        some = Anchors(dead=(anchor,))
        count = int((some.classify(ids) == CLASSES.index("dead")).sum())
        if 0 < count < tokens // 2:
            break
    with compress(model, EmbedLens(prune="dead", control="matched", anchors=some)) as session:
        model(**given)
    assert session.stats.visual[0] in (tokens - count, tokens - count + 1)  # a line end may be near the anchor too
    with compress(model, EmbedLens(skip="2.5", skip_target="visual")):
        torch.testing.assert_close(model(**given).logits[0, ~visual], plain[0, ~visual], rtol=1e-4, atol=1e-4)
    if name.startswith("qwen"):
        with compress(model, EmbedLens(prune="")) as session:
            torch.testing.assert_close(model(**given).logits, plain, rtol=1e-4, atol=1e-4)
        last = 2 if name == "qwen2_5_vl" else 1
        with pytest.raises(UnsupportedModelError), compress(model, EmbedLens(entry=last)):
            model(**given)
        return
    with compress(model, EmbedLens(entry=1)) as session:
        model(**given)
    assert session.stats.visual == {0: 0.0, 1: float(tokens), 2: float(tokens)}
