"""The table of ``testbed/audio`` on a model of known behaviour: it answers by the audio tokens of its prompt."""

import torch
from transformers import Qwen2AudioForConditionalGeneration

from laconic.tasks.audio.sounds import RATE
from laconic.tasks.audio.tasks import SOUND_TASKS
from laconic.testbed import evaluate_audio
from laconic.testbed.audio_model import AUDIO, TOKEN_SECONDS, build_model, build_processor, build_tokenizer

COUNT = next(task for task in SOUND_TASKS if task.kind == "count")
NUMBERS = range(1_000_000, 1_000_030)


class Oracle(Qwen2AudioForConditionalGeneration):
    """Answers questions about long clips rightly and writes nonsense about short ones."""

    def __init__(self, processor, task):
        super().__init__(build_model().config)
        self.tokenizer, self.placeholder = processor.tokenizer, processor.audio_token_id
        self.rows = iter([task.sample(number) for number in NUMBERS])

    def generate(self, input_ids, attention_mask, max_new_tokens, stopping_criteria, **options):
        assert {"input_features", "feature_attention_mask"} <= set(options)
        stopping_criteria(input_ids, None)  # as after the first token
        answers = []
        for ids, sample in zip(input_ids, self.rows, strict=False):
            assert sample.question in self.tokenizer.decode(ids)
            long = int((ids == self.placeholder).sum()) * TOKEN_SECONDS > evaluate_audio.SHORT
            answers.append([*self.tokenizer.encode(sample.answers[0] if long else "the", add_special_tokens=False), 2])
        padded = torch.zeros(len(answers), max_new_tokens, dtype=torch.long)
        for row, ids in zip(padded, answers, strict=True):
            row[: len(ids)] = torch.tensor(ids)
        return torch.cat([input_ids, padded], 1)


def test_right_answers_are_counted_by_the_length_of_the_clip(monkeypatch):
    monkeypatch.setattr(evaluate_audio, "BATCH", 30)
    processor = build_processor(build_tokenizer())
    right, seconds = evaluate_audio.correct(Oracle(processor, COUNT).eval(), processor, COUNT, NUMBERS)
    assert [round(s * RATE) for s in seconds] == [len(COUNT.sample(n).shown()[0]) for n in NUMBERS]
    sure = [(r, s) for r, s in zip(right, seconds, strict=True) if abs(s - evaluate_audio.SHORT) > TOKEN_SECONDS]
    assert all(r == (s > evaluate_audio.SHORT) for r, s in sure) and 5 < sum(right) < 25
    assert processor.audio_token == AUDIO


def test_cells_say_of_how_many():
    assert evaluate_audio.cell([]) == "-"
    assert evaluate_audio.cell([True] * 9 + [False]) == "90.0 of 10"


def test_a_report_says_what_misses_the_gate(tmp_path, capsys, monkeypatch):
    build_model().save_pretrained(tmp_path)
    build_processor(build_tokenizer()).save_pretrained(tmp_path)
    monkeypatch.setattr(evaluate_audio, "SOUND_TASKS", (COUNT,))
    assert not evaluate_audio.report(tmp_path, 2)
    shown = capsys.readouterr().out
    assert "| count | 0.0 of 2 |" in shown and "gate of 95% NOT passed" in shown
