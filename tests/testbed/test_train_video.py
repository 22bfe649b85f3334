"""What of testbed/vlm becomes testbed/video, packed questions against the class's own forward, and resumed runs."""

import random

import pytest
import torch
from transformers import AutoTokenizer, LlavaForConditionalGeneration, LlavaOnevisionForConditionalGeneration

from laconic.shipped import model_path
from laconic.tasks.video.clips import FRAMES, draw, film
from laconic.tasks.video.questions import QUESTIONS, dialogue
from laconic.tasks.video.tasks import CLIP_TASKS
from laconic.testbed import evaluate_video
from laconic.testbed.clip_batch import KIND_NAMES, Batches
from laconic.testbed.scene_batch import pixels_of
from laconic.testbed.train_video import Trainer, parser
from laconic.testbed.video_model import FRAME_TOKENS, VOCAB_SIZE, build_processor, build_tokenizer, middle


def settings(folder, *more):
    return parser().parse_args(["--out", str(folder), "--rows", "12", "--questions", "2", *more])


@pytest.fixture(scope="module")
def trainer(tmp_path_factory):
    return Trainer(settings(tmp_path_factory.mktemp("video")))


def test_it_begins_with_the_weights_of_the_testbed(trainer):
    start = model_path("testbed/vlm")
    old = LlavaForConditionalGeneration.from_pretrained(start, dtype=torch.float32).state_dict()
    new = trainer.model.state_dict()
    assert isinstance(trainer.model, LlavaOnevisionForConditionalGeneration)
    changed = {name for name in new if name not in old or new[name].shape != old[name].shape}
    assert {name.rpartition(".")[0].rpartition(".")[2] or name for name in changed} >= {"position_embedding"}
    for name in new.keys() & old.keys() - changed:
        assert torch.equal(new[name], old[name]), name
    words, known = trainer.batches.writer.tokenizer.get_vocab(), AutoTokenizer.from_pretrained(start).get_vocab()
    rows, before = (x["model.language_model.embed_tokens.weight"] for x in (new, old))
    for word in (" sign", "7", " left", "</s>", "<|assistant|>"):
        word = word.replace(" ", "Ġ")
        assert torch.equal(rows[words[word]], before[known[word]]), word
    assert len(rows) == VOCAB_SIZE >= len(words) == len(build_tokenizer())


def test_the_tower_keeps_the_positions_of_the_middle():
    table = torch.arange(1 + 16).float()[:, None]
    assert middle(table, 2).flatten().tolist() == [0, 6, 7, 10, 11]


@pytest.fixture(scope="module")
def model(trainer):
    """The class as transformers runs it, with the trainer's weights."""
    own = LlavaOnevisionForConditionalGeneration(trainer.model.config).eval()
    own.set_attn_implementation("eager")
    own.load_state_dict(trainer.model.state_dict())
    return own


@pytest.mark.parametrize("chained", [False, True])
def test_packed_questions_are_answered_as_in_their_own_prompt(trainer, model, chained):
    clips = [draw(random.Random(seed), 5) for seed in (1, 2)]
    asked = [dialogue(random.Random(i), clip, 2, dict.fromkeys(QUESTIONS, 1.0)) for i, clip in enumerate(clips)]
    batch = trainer.batches.collate(clips, asked, [chained] * 2)
    writer, number = trainer.batches.writer, 0
    with torch.no_grad():
        logits = trainer.answers(batch)
        for clip, questions in zip(clips, asked, strict=True):
            turns = writer.turns(questions, chained)
            for i, (prompt, answer) in enumerate(turns):
                earlier = [x for turn in turns[:i] for part in turn for x in part] if chained else []
                ids = torch.tensor([[*trainer.batches.opening(5), *earlier, *prompt, *answer]])
                expected = model(input_ids=ids, pixel_values_videos=pixels_of([film(clip)])).logits[0, -len(answer) - 1 : -1]
                torch.testing.assert_close(logits[batch.packed.question == number], expected, atol=1e-4, rtol=1e-4)
                assert KIND_NAMES[batch.kinds[number]] == questions[i].kind
                number += 1
    assert number == len(batch.kinds) > 2


def test_every_stage_adds_longer_clips_and_keeps_short_ones(trainer, monkeypatch):
    drawn: list[int] = []
    monkeypatch.setattr(trainer.batches, "draw", lambda rng, rows, questions, weights, frames: drawn.append(frames))
    for stage, longest in enumerate(FRAMES):
        trainer.state["stage"] = stage
        drawn.clear()
        for seed in range(400):
            trainer.drawn(random.Random(seed))
        assert max(drawn) == longest and min(drawn) == FRAMES[0]


def test_a_resumed_run_equals_an_unbroken_one_and_leaves_the_tower_alone(tmp_path):
    unbroken, broken = Trainer(settings(tmp_path / "a")), Trainer(settings(tmp_path / "b"))
    tower = {name: p.clone() for name, p in unbroken.model.model.vision_tower.named_parameters()}
    for trainer in (unbroken, broken):
        trainer.step()
    broken.save()
    resumed = Trainer(settings(tmp_path / "b", "--resume"))
    resumed.load()
    unbroken.step()
    resumed.step()
    for a, b in zip(unbroken.model.parameters(), resumed.model.parameters(), strict=True):
        torch.testing.assert_close(a, b)
    for name, p in unbroken.model.model.vision_tower.named_parameters():
        assert torch.equal(p, tower[name])


def test_the_table_counts_what_generation_answers(trainer, model, monkeypatch):
    """A padded batch of questions is answered as each question is alone."""
    task = next(task for task in CLIP_TASKS if task.kind == "first" and task.frames == 4)
    tokenizer = trainer.batches.writer.tokenizer
    processor, seen = build_processor(tokenizer), []
    monkeypatch.setattr(type(task), "score", lambda self, answer, sample, turn=0: seen.append(answer) or 1.0)
    numbers = range(1_000_000, 1_000_004)
    assert evaluate_video.correct(model, processor, task, numbers) == [True] * 4
    together = list(seen)
    for number in numbers:
        evaluate_video.correct(model, processor, task, [number])
    assert seen[4:] == together and len(Batches(tokenizer).opening(4)) == 2 + 4 * FRAME_TOKENS + 1


def test_the_table_has_the_lengths_that_were_asked_for(trainer, tmp_path, monkeypatch, capsys):
    trainer.model.save_pretrained(tmp_path)
    build_processor(trainer.batches.writer.tokenizer).save_pretrained(tmp_path)
    right = {4: [True] * 19 + [False], 8: [True] * 18 + [False] * 2}
    monkeypatch.setattr(evaluate_video, "correct", lambda model, tokenizer, task, numbers: right[task.frames])
    assert evaluate_video.report(tmp_path, 20, frames=[4])
    assert not evaluate_video.report(tmp_path, 20, frames=[4, 8])
    told = capsys.readouterr().out
    assert "| question | 4 frames |\n|---|---|\n| reading | 95.0 of 20 |" in told
    assert "| first | 95.0 of 20 | 90.0 of 20 |" in told
