"""CrossLMM in a session. "line n" is what the card must show."""

import pytest
import torch
from helpers.vision_tools import inputs, open_gates
from helpers.visual_fit import check_artifacts

import laconic
from laconic import BudgetError, UnsupportedModelError, compress
from laconic.artifact import Artifact, numbers
from laconic.cache import saved
from laconic.methods.tokens.crosslmm.method import CrossLMM
from laconic.methods.tokens.crosslmm.network import Beside
from laconic.methods.tokens.crosslmm.side import NAMES
from laconic.stream.grids import averaged

LAYERS = (3, 7)


def net_of(model, path, sides=(1, 2, 4), gates=True, most=12, layers=LAYERS):
    """An artifact with open or closed gates, and its network."""
    torch.manual_seed(0)
    net = Beside(model, layers, True, True).eval().requires_grad_(False)
    if gates:
        open_gates(net)
    data = {"sides": list(sides), "layers": list(layers), "visual": True, "text": True, "side": most}
    Artifact.of("crosslmm", "trained", model, data, numbers(net)).save(path)
    return net


@pytest.fixture(scope="module")
def made(vlm, tmp_path_factory):
    path = tmp_path_factory.mktemp("crosslmm") / "net.safetensors"
    return str(path), net_of(vlm, path)


def test_closed_gates_leave_pooling_and_all_tokens_the_model(vlm, tmp_path):
    """lines 1 and 6: bit for bit the pooled stream; with as many tokens as there are, the model"""
    path, given = str(tmp_path / "net.safetensors"), inputs([(3, 9), (8, 4)])
    net_of(vlm, path, sides=(2, 12), gates=False)
    with compress(vlm, CrossLMM(side=12, artifact=path)):
        found = vlm(**given).logits[:, -1]
    torch.testing.assert_close(found, vlm(**given).logits[:, -1], rtol=1e-5, atol=1e-5)
    with compress(vlm, CrossLMM(side=2, artifact=path)) as session:
        pooled = vlm(**given).logits[:, -1]
    assert [layer.stored for layer in session.cache.compressed()] == [4 + 12] * 8
    net_of(vlm, path, sides=(2,), gates=False, layers=())
    with compress(vlm, CrossLMM(artifact=path)):
        assert torch.equal(vlm(**given).logits[:, -1], pooled)


def by_hand(model, net, given, side, new=()):
    """Hidden states of the last layer, from layers run by hand on one prompt and `new` tokens after it."""
    stack, patches = model.model.language_model, model.model.vision_tower(given["pixel_values"], output_hidden_states=True)
    tokens = net.readout(patches.hidden_states[-2][:, 1:])
    soft = torch.cat([averaged(x.unflatten(0, (12, 12)), side, side) for x in tokens])
    ids = given["input_ids"][0]
    at = int((ids == 6).nonzero()[0])
    words = model.get_input_embeddings()
    text = torch.cat([ids[ids != 6], torch.tensor(new, dtype=torch.long)])
    hidden = torch.cat([words(text[:at]), soft, words(text[at:])])[None]
    shown = torch.zeros(hidden.shape[:2], dtype=torch.bool)
    shown[0, at : at + len(soft)] = True
    phases = stack.rotary_emb(hidden, torch.arange(hidden.shape[1])[None])
    mask = torch.full((hidden.shape[1],) * 2, -torch.inf).triu(1)[None, None]
    for number, layer in enumerate(stack.layers):
        hidden = hidden + layer.self_attn(layer.input_layernorm(hidden), phases, mask)[0]
        if number in net.layers:
            insert = net.insert(number)
            visual, read = insert.sides(tokens.flatten(0, 1)[None])
            rows = insert.norm(hidden)
            hidden = hidden + torch.where(
                shown[..., None],
                torch.tanh(insert.visual_gate) * insert.visual(rows, visual),
                torch.tanh(insert.text_gate) * insert.text(rows, read),
            )
        hidden = hidden + layer.mlp(layer.post_attention_layernorm(hidden))
    return model.lm_head(stack.norm(hidden))[0]


@pytest.mark.parametrize("images", [1, 2])
def test_cached_decoding_equals_a_full_run_by_hand(vlm, made, images):
    """line 5: and it reads what is kept beside the cache"""
    path, net = made
    given = inputs([(3, 9)], images=images)
    with compress(vlm, CrossLMM(side=2, artifact=path)) as session:
        out = vlm.generate(**given, max_new_tokens=6, do_sample=False, return_dict_in_generate=True, output_logits=True)
    new = out.sequences[0, -6:].tolist()
    want = by_hand(vlm, net, given, 2, new[:-1])[-6:]
    torch.testing.assert_close(torch.cat(out.logits), want, rtol=1e-3, atol=1e-3)
    assert session.cache.layers[3].state[NAMES[0]].shape == (1, 2, 144 * images, 32)
    assert not session.cache.layers[4].state


def test_without_what_is_kept_for_it_decoding_says_something_else(vlm, made):
    """line 5"""
    given, said = inputs([(3, 9)]), []
    for forget in (False, True):
        with compress(vlm, CrossLMM(side=2, artifact=made[0])) as session:
            vlm(**given)
            if forget:
                for layer in LAYERS:
                    session.cache.layers[layer].state.clear()
            said.append(vlm(torch.tensor([[7]]), past_key_values=session.cache).logits[0, -1])
    assert (said[0] - said[1]).abs().max() > 1e-2


def test_a_fork_a_file_and_beams_take_it_along(vlm, made, tmp_path):
    given, question = inputs([(3, 9)]), torch.tensor([[7, 8]])
    with compress(vlm, CrossLMM(side=2, artifact=made[0])) as session:
        vlm(**given)
        fork = session.cache.fork()
        session.save_cache(tmp_path / "context.safetensors")
        want = vlm(question, past_key_values=session.cache).logits
        torch.testing.assert_close(vlm(question, past_key_values=fork).logits, want, rtol=1e-4, atol=1e-4)
    loaded = saved.load(tmp_path / "context.safetensors", vlm)
    with compress(vlm, *loaded.methods) as session:
        torch.testing.assert_close(vlm(question, past_key_values=loaded.cache()).logits, want, rtol=1e-4, atol=1e-4)


def test_a_later_image_is_read_beside_the_first(vlm, made):
    first, second = inputs([(3, 9)]), inputs([(2, 5)], seed=1)
    with compress(vlm, CrossLMM(side=2, artifact=made[0])) as session:
        vlm(**first)
        mask = torch.ones(1, first["input_ids"].shape[1] + second["input_ids"].shape[1], dtype=torch.long)
        vlm(**second | {"attention_mask": mask}, past_key_values=session.cache)
    assert session.cache.layers[3].state[NAMES[0]].shape[2] == 288


def test_a_row_without_an_image_is_the_model_s_own(vlm, made):
    """In a batch with one that has an image."""
    given = inputs([(3, 9), (8, 4)])
    alone = torch.randint(10, 400, (1, 9), generator=torch.Generator().manual_seed(1))
    given["input_ids"][1], given["attention_mask"][1] = 0, 0
    given["input_ids"][1, -9:], given["attention_mask"][1, -9:] = alone[0], 1
    given["pixel_values"] = given["pixel_values"][:1]
    with compress(vlm, CrossLMM(side=2, artifact=made[0])):
        both = vlm(**given).logits[1, -1]
    torch.testing.assert_close(both, vlm(alone).logits[0, -1], rtol=1e-3, atol=1e-3)


def test_what_a_call_that_failed_has_left_is_forgotten(vlm, made):
    """Visual tokens that no pass has taken from the cut, before a prompt without an image."""
    method = CrossLMM(side=2, artifact=made[0])
    with compress(vlm, method) as session:
        method.here.memory = torch.randn(1, 5, vlm.config.text_config.hidden_size), torch.ones(1, 5, dtype=torch.bool)
        vlm(torch.tensor([[7, 8, 9]]))
    assert method.here.memory is None and not session.cache.layers[LAYERS[0]].state


def test_pseudo_tokens_of_another_method_are_text(vlm, made):
    given = inputs([(3, 9)])
    with compress(vlm, CrossLMM(side=2, artifact=made[0]), laconic.create_method("dapq", tokens=10)) as session:
        found = vlm(**given).logits
    assert bool(found.isfinite().all()) and session.cache.layers[0].stored < 16


def test_bytes_and_flops_beside_the_stream_are_counted(vlm, made):
    """line 7: self-attention over G^2 tokens an image, the side linear in all of them"""
    found, per_image = {}, 2 * len(LAYERS) * 144 * 2 * 32 * 4
    for images in (1, 2, 4):
        with torch.inference_mode(), compress(vlm, CrossLMM(side=2, artifact=made[0]), count_flops=True) as session:
            vlm(**inputs([(3, 9)], images=images), logits_to_keep=1)
            vlm(torch.tensor([[7]]), past_key_values=session.cache)
        found[images] = stats = session.stats
        assert stats.kv_bytes == session.cache.nbytes + images * per_image
        assert stats.prefill_flops == session.shape.prefill_flops([12 + 4 * images] * 8)
    read = {images: stats.method_decode_flops for images, stats in found.items()}  # one token: fixed, and 4 D a pair
    assert read[4] - read[2] == 2 * (read[2] - read[1]) == 2 * len(LAYERS) * 4 * 144 * 4 * 32


def test_a_budget_takes_the_largest_size_that_fits(vlm, made):
    given = inputs([(3, 9)])
    for budget, tokens in (({}, 1), ({"keep": 0.5}, 16), ({"tokens": 15}, 4), ({"tokens": 1}, 1)):
        with compress(vlm, CrossLMM(artifact=made[0], **budget)) as session:
            vlm(**given)
        assert session.stats.visual[0] == tokens
    entry = 8 * 2 * 2 * 32 * 4
    enough = (12 + 4 + 36) * entry  # the text, four tokens, and 144 in two of eight layers
    with compress(vlm, CrossLMM(artifact=made[0], bytes=enough)) as session:
        vlm(**given)
    assert session.stats.visual[0] == 4 and session.stats.kv_bytes == enough
    with compress(vlm, CrossLMM(artifact=made[0], bytes=40 * entry)), pytest.raises(BudgetError, match="at least one must"):
        vlm(**given)


def test_what_makes_no_sense_is_refused(vlm, made, tmp_path):
    path = str(tmp_path / "net.safetensors")
    with pytest.raises(BudgetError, match="give one of them"):
        CrossLMM(side=1, keep=0.5)
    with pytest.raises(ValueError, match="side=3: this artifact has 1, 2, 4"):
        compress(vlm, CrossLMM(side=3, artifact=made[0]))
    with compress(vlm, CrossLMM(artifact=made[0], protect=(3, 10))), pytest.raises(BudgetError, match="protected"):
        vlm(**inputs([(3, 9)]))
    net_of(vlm, path, most=6)
    with compress(vlm, CrossLMM(artifact=path)), pytest.raises(UnsupportedModelError, match=r"up to 6 .* has 12 x 12"):
        vlm(**inputs([(3, 9)]))
    net_of(vlm, path, sides=(2, 4))
    with compress(vlm, CrossLMM(artifact=path, tokens=3)), pytest.raises(BudgetError, match="makes 4 of it; raise it"):
        vlm(**inputs([(3, 9)]))


def test_views_that_are_smaller_than_the_averages(vlm, made):
    method = CrossLMM(artifact=made[0])
    compress(vlm, method)
    assert method._sized(None, 0, [torch.zeros(12, 3), torch.zeros(12, 12)]) == [1, 1]
    method.side = 4
    with pytest.raises(UnsupportedModelError, match=r"a view has 12 x 3 visual tokens, too few for averages on 4 x 4"):
        method._sized(None, 0, [torch.zeros(12, 3)])


def test_layers_of_another_kind_are_refused(vlm, made, monkeypatch):
    monkeypatch.setattr(vlm.model.language_model.layers[3], "residual_multiplier", 0.5, raising=False)
    with pytest.raises(UnsupportedModelError, match="not the parts of a Llama layer"):
        compress(vlm, CrossLMM(artifact=made[0]))


def test_artifacts_are_checked(vlm, llama, made, tmp_path):
    path = tmp_path / "net.safetensors"
    net_of(vlm, path)
    check_artifacts(lambda artifact: CrossLMM(artifact=artifact), path, vlm, llama)


def test_it_is_in_the_catalogue():
    assert laconic.create_method("crosslmm:side=2").side == 2
