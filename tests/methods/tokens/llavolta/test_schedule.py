"""LLaVolta's stages; "line n" is what the card must show. The lines about what a training comes to are slow."""

from contextlib import nullcontext

import pytest
import torch
from helpers.trained_toy import Chance, accuracy, batch, toy, train
from helpers.vision_tools import laconic_hooks
from torch.autograd.graph import saved_tensors_hooks
from transformers import LlavaForConditionalGeneration, Trainer, TrainingArguments

from laconic import compress, load
from laconic.fit.losses import answer_loss, short_labels
from laconic.methods.tokens.llavolta.method import LLaVolta, compression_ratio
from laconic.methods.tokens.llavolta.schedule import FOUR_STAGES, HEAVY, LIGHT, Schedule, Stage, StagedCompression
from laconic.tasks.scenes.questions import make
from laconic.testbed.evaluate_vlm import ask, correct


def gradients(model, session, given, labels):
    model.zero_grad()
    with session as opened:
        loss = answer_loss(opened, model(**given).logits, labels)
        loss.backward()
    return float(loss.detach()), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("how", ["off", "stride 1"])
def test_switched_off_loss_and_gradients_are_the_host_s(how):
    """line 1: no session at all when the stage is off; with one, equal up to the kernel's rounding"""
    model = toy().train()
    given, labels, _ = batch(0, 8)
    model.zero_grad()
    want = model(**given, labels=labels).loss
    want.backward()
    wanted = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    session = Schedule((Stage(),)).compressed(model, 0, 4) if how == "off" else compress(model, LLaVolta(stride=1))
    loss, got = gradients(model, session, given, labels)
    assert loss == pytest.approx(float(want.detach()), rel=1e-6) and got.keys() == wanted.keys()
    for name, x in got.items():
        if how == "off":
            assert torch.equal(x, wanted[name]), name
        torch.testing.assert_close(x, wanted[name], rtol=1e-3, atol=1e-6)


def test_gradients_through_a_compressed_pass_are_slopes_of_the_loss():
    """Of weights before the compressor and after it, and of the images: differences along the gradient."""
    model = toy().train()
    given, labels, _ = batch(0, 4)
    given["pixel_values"].requires_grad_(True)

    def loss():
        with compress(model, LLaVolta(layer=1, stride=4)) as session:
            return answer_loss(session, model(**given).logits, labels)

    loss().backward()
    layers = model.model.language_model.layers
    for x in (layers[0].self_attn.v_proj.weight, layers[2].mlp.up_proj.weight, given["pixel_values"]):
        slope = float(x.grad.norm())
        step = 3e-2 * x.grad / slope
        told = []
        with torch.no_grad():
            for sign in (1, -2):
                x += sign * step
                told.append(float(loss()))
            x += step
        assert slope > 1e-3 and (told[0] - told[1]) / 6e-2 == pytest.approx(slope, rel=3e-2)


def test_the_same_answer_tokens_have_a_loss():
    """line 5: padded rows, several answers; labels follow their tokens"""
    model = toy()
    given, labels, _ = batch(0, 3)
    ids = torch.nn.functional.pad(given["input_ids"], (0, 4), value=7)
    labels = torch.nn.functional.pad(labels, (0, 4), value=7)
    ids[1], labels[1] = ids[1].roll(2), labels[1].roll(2)
    mask = torch.ones_like(ids)
    mask[1, :2], labels[1, :2], ids[1, :2] = 0, -100, 0
    given = {"input_ids": ids, "attention_mask": mask, "pixel_values": given["pixel_values"]}
    for stride in (1, 2, 3, 16):
        with compress(model, LLaVolta(layer=1, stride=stride)) as session:
            logits = model(**given).logits
        short = short_labels(session, labels)
        assert short.shape == logits.shape[:2]
        for b in range(3):
            assert short[b][short[b] != -100].tolist() == labels[b][labels[b] != -100].tolist()
        each = torch.stack([-logits[b, i].log_softmax(-1)[short[b, i + 1]] for b, i in (short[:, 1:] != -100).nonzero()])
        torch.testing.assert_close(answer_loss(session, logits, labels), each.mean())
        torch.testing.assert_close(answer_loss(session, logits, labels, 30), each.sum() / 30)


def test_stages_have_equal_parts_of_the_steps():
    """line 6: 5,200 steps switch at 1,300, 2,600 and 3,900"""
    schedule = Schedule()
    stages = [schedule.at(step, 5200) for step in range(5200)]
    switches = [i for i in range(1, 5200) if stages[i] != stages[i - 1]]
    assert switches == [1300, 2600, 3900] and [stages[i] for i in (0, *switches)] == list(FOUR_STAGES)
    assert schedule.at(9999, 5200) == FOUR_STAGES[-1] and Schedule(HEAVY).at(5199, 5200) == Stage(2, 8)
    methods = [stage.method(32) for stage in FOUR_STAGES]
    ratios = [100 if m is None else compression_ratio(m.layer, m.stride, 32) for m in methods]
    assert [round(r) for r in ratios] == [557, 188, 133, 100] and LIGHT[0].method(32).layer == 16
    with pytest.raises(ValueError, match="one stage or more"):
        Schedule(())


class Data(torch.utils.data.Dataset):
    def __len__(self):
        return 64

    def __getitem__(self, i):
        given, labels, _ = batch(i, 1)
        return {**{name: x[0] for name, x in given.items()}, "labels": labels[0]}


def test_a_trainer_switches_at_optimiser_steps_and_goes_on_after_a_checkpoint(tmp_path):
    """line 6: accumulation and evaluation do not advance the stage; a resumed training is the same"""
    staged = StagedCompression(Schedule((Stage(0, 8), Stage(16, 2), Stage())))
    seen = []

    def trainer(out, callback, model, steps=None):
        model.register_forward_pre_hook(
            lambda module, args: seen.append((module.training, callback.session and callback.session.methods[0].stride))
        )
        arguments = TrainingArguments(
            output_dir=str(out),
            max_steps=6,
            per_device_train_batch_size=2,
            gradient_accumulation_steps=2,
            eval_strategy="steps",
            eval_steps=1,
            per_device_eval_batch_size=64,
            save_steps=3,
            report_to=[],
            use_cpu=True,
            disable_tqdm=True,
            seed=5,
        )
        made = Trainer(
            model=model,
            args=arguments,
            train_dataset=Data(),
            eval_dataset=torch.utils.data.Subset(Data(), range(8)),
            callbacks=[callback],
            compute_loss_func=callback.loss,
        )
        made.train(resume_from_checkpoint=steps)
        assert laconic_hooks(model) == [] and callback.session is None
        return model

    one = trainer(tmp_path / "a", staged, toy(seed=3))
    trained = [stride for training, stride in seen if training]
    assert trained == [8] * 4 + [2] * 4 + [None] * 4
    assert [stride for training, stride in seen if not training] == [None] * 6
    seen.clear()
    saved = str(tmp_path / "a" / "checkpoint-3")
    loaded = LlavaForConditionalGeneration.from_pretrained(saved)  # the Trainer restores all but the weights of this class
    two = trainer(tmp_path / "b", StagedCompression(staged.schedule), loaded, saved)
    assert [stride for training, stride in seen if training] == [2] * 2 + [None] * 4
    for x, y in zip(one.state_dict().values(), two.state_dict().values(), strict=True):
        torch.testing.assert_close(x, y, rtol=1e-5, atol=1e-6)


def test_what_backward_holds_and_flops_fall_with_the_ratio():
    """line 7: bytes that autograd keeps for the backward pass, and FLOPs; the ratio of the visual tokens is the formula's"""
    model = toy(layers=8).train()
    given, labels, _ = batch(0, 8)
    held, flops, ratios = [], [], []
    for layer, stride in ((1, 1), (4, 2), (1, 2), (1, 8)):
        total = {}

        def keep(x, total=total):
            total[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
            return x

        with saved_tensors_hooks(keep, lambda x: x), compress(model, LLaVolta(layer=layer, stride=stride)) as session:
            answer_loss(session, model(**given).logits, labels)
        held.append(sum(total.values()))
        flops.append(session.stats.prefill_flops)
        ratios.append(compression_ratio(layer, stride, 8))
        assert session.stats.visual_in / (sum(session.stats.visual.values()) / 8) == pytest.approx(ratios[-1] / 100)
    assert ratios == sorted(ratios) and held == sorted(held, reverse=True) and flops == sorted(flops, reverse=True)


def whole(step):
    return nullcontext()


@pytest.mark.slow
def test_four_stages_come_to_what_uncompressed_training_comes_to_and_heavy_only_does_not():
    """line 8, tested without compression; the toy looks at its image in the first layer, so K is 0 and not 2"""
    told = {}
    heavy, wide, deep = Stage(0, 8), Stage(0, 2), Stage(16, 2)
    schemes = {"plain": (Stage(),), "four": (heavy, wide, deep, Stage()), "heavy": (heavy,)}
    for name, schedule in ((name, Schedule(stages)) for name, stages in schemes.items()):
        model = toy()
        train(model, 400, lambda step, model=model, schedule=schedule: schedule.compressed(model, step, 400))
        told[name] = accuracy(model, whole)
    assert told["four"] > told["plain"] - 0.03 and told["heavy"] < told["four"] - 0.1, told


@pytest.mark.slow
def test_at_test_time_pooling_degrades_gently_and_less_than_random_dropping():
    """line 9 on the trained testbed model, before layer 1 of 8; at stride 8 random dropping is no worse (docs/systems)"""
    model, processor = load("testbed/vlm")
    samples = [make(kind, 500_000 + i) for kind in ("existence", "colour", "position", "count") for i in range(50)]

    def right(method):
        return sum(correct(samples, ask(model, processor, samples, methods=[method])))

    pooled = [right(LLaVolta(stride=stride)) for stride in (1, 2, 4, 8)]
    torch.manual_seed(0)
    assert pooled[1] > 0.9 * pooled[0] and pooled[2] > 0.75 * pooled[0] and pooled[3] > 0.5 * pooled[0], pooled
    assert pooled[1] > right(Chance(keep=0.5, count=72)), pooled
