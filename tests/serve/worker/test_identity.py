"""A context's digest: everything that changes what is kept changes it."""

from helpers.bench_tools import tiny

import laconic
from laconic.artifact import Artifact
from laconic.serve.worker import identity

IDS = [[5, 6, 7, 8]]


def test_every_part_is_in_the_digest():
    model = identity.of_model(*tiny())
    snapkv = laconic.SnapKV(keep=0.5)
    asked = [
        (model, IDS, [snapkv], [], "text", "x"),
        ({**model, "weights": "other"}, IDS, [snapkv], [], "text", "x"),
        (model, [[5, 6], [7, 8]], [snapkv], [], "text", "x"),
        (model, IDS, [laconic.SnapKV(keep=0.25)], [], "text", "x"),
        (model, IDS, [laconic.SnapKV(keep=0.5, window=4)], [], "text", "x"),
        (model, IDS, [], [], "text", "x"),
        (model, IDS, [snapkv], ["a"], "text", "x"),
        (model, IDS, [snapkv], [], "turns", "x"),
        (model, IDS, [snapkv], [], "text", "xy"),  # its end belongs to a token that is not there yet
        (model, IDS, [snapkv], [], "text", "x", "ctx_a"),
        (model, IDS, [snapkv], [], "text", "x", "ctx_b"),
        (model, IDS, [snapkv], [], "text", "x", None, "a"),
        (model, IDS, [snapkv], [], "text", "x", None, ""),
    ]
    assert len({identity.of_context(*each) for each in asked}) == len(asked)
    assert identity.of_context(identity.of_model(*tiny()), *asked[0][1:]) == identity.of_context(*asked[0])


def test_the_template_and_special_tokens_are_in_the_digest():
    lm, tokenizer = tiny()
    found = [identity.of_model(lm, tokenizer)]
    tokenizer.chat_template += " "
    found.append(identity.of_model(lm, tokenizer))
    tokenizer.eos_token = tokenizer.pad_token
    found.append(identity.of_model(lm, tokenizer))
    assert len({identity.of_context(each, IDS, [], [], "text", "x") for each in found}) == 3


def test_the_content_of_an_artifact_is_in_the_digest(tmp_path):
    lm, tokenizer = tiny()
    model, file = identity.of_model(lm, tokenizer), tmp_path / "artifact.safetensors"
    digests = set()
    for heads in ([[0, 0]], [[0, 1]]):
        Artifact.of("razorattention", "measured", lm, {"heads": heads}).save(file)
        digests.add(identity.of_context(model, IDS, [laconic.RazorAttention(artifact=str(file))], [], "text", "x"))
    assert len(digests) == 2
