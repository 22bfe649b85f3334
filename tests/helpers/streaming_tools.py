"""A tiny LLaVA-OneVision that reads clips of the video testbed, its tokenizer, and checks of methods that read videos piece
by piece."""

import random

import torch
from transformers import LlavaOnevisionConfig, LlavaOnevisionForConditionalGeneration

from laconic import compress
from laconic.testbed.clip_batch import Batches
from laconic.testbed.scene_batch import pixels_of
from laconic.testbed.video_model import IMAGE, VIDEO, VOCAB_SIZE, build_tokenizer

SIDE = 48
WIDTH, FRAME_TOKENS = 32, 9


def video_testbed():
    """Random weights in the testbed's shape, but narrow: 6 x 6 patches and 9 tokens a frame; and the testbed's tokenizer."""
    torch.manual_seed(0)
    tokenizer = build_tokenizer()
    vision = {"model_type": "clip_vision_model", "hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 4}
    vision |= {"num_attention_heads": 2, "image_size": SIDE, "patch_size": 8, "projection_dim": 16}
    text = {"model_type": "llama", "vocab_size": VOCAB_SIZE, "hidden_size": WIDTH, "intermediate_size": 64}
    text |= {"num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2, "eos_token_id": 2}
    config = LlavaOnevisionConfig(
        vision_config=vision,
        text_config=text | {"bos_token_id": 1, "pad_token_id": 0},
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE),
        video_token_index=tokenizer.convert_tokens_to_ids(VIDEO),
        image_grid_pinpoints=[[SIDE, SIDE]],
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        tie_word_embeddings=True,
    )
    model = LlavaOnevisionForConditionalGeneration(config).eval().requires_grad_(False)
    for name, weight in model.named_parameters():
        if weight.ndim >= 2 or "newline" in name:
            weight.normal_(0, 0.2)
    return model, tokenizer


def stirred(net, spread=0.1):
    """`net` with weights none of which is zero, in eval mode and frozen."""
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in net.parameters():
            weight.add_(torch.randn_like(weight) * spread)
    return net.eval().requires_grad_(False)


def prompt(tokenizer, frames, question="What does the sign say?"):
    """Model inputs of a question about frames uint8 [T, S, S, 3]."""
    batches = Batches(tokenizer)
    rest = [*batches.writer.encode(question), tokenizer.eos_token_id, batches.writer.assistant]
    ids = torch.tensor([batches.opening(len(frames)) + rest])
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values_videos": pixels_of([frames])}


def embeddings(model, method, given):
    """What the decoder's first layer reads in a session, and the session."""
    seen = []
    with compress(model, method) as session:
        hook = model.model.language_model.layers[0].register_forward_pre_hook(lambda module, args: seen.append(args[0]))
        with torch.no_grad():
            model(**given)
    hook.remove()
    return seen[0][0], session


def check_same_as_session(fit, model, tokenizer, method):
    """Logits after the prompt, from the layout of training and from a session with `method`."""
    clips = fit.drawn(random.Random(3))
    asked = fit.filmed(clips)
    with torch.no_grad():
        trained = fit.logits(asked, random.Random(0))
    each = min(len(clip.questions) for clip in clips)
    rows = [(clip.frames, question) for clip in clips for question in clip.questions[:each]]
    with compress(model, method), torch.no_grad():
        for b, (frames, question) in enumerate(rows):
            said = model(**prompt(tokenizer, frames, question.text)).logits[0, -1]
            answer = int((asked.labels[b] != -100).sum())
            torch.testing.assert_close(trained[b, -answer - 1], said, rtol=1e-3, atol=1e-3)


def live_numbers(film):
    """Numbers in all tensors that a film holds of its video."""
    seen, found = [film.__dict__.get(name) for name in vars(film) if name not in ("net", "tower", "question")], 0
    while seen:
        one = seen.pop()
        if isinstance(one, torch.Tensor):
            found += one.untyped_storage().nbytes() // one.element_size()
        elif isinstance(one, (list, tuple)):
            seen += one
    return found
