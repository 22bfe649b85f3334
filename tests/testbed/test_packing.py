"""Packed rows: what each token may see, where it stands, and where its answer is."""

from dataclasses import dataclass

import pytest
import torch

from laconic.testbed.audio_model import build_tokenizer
from laconic.testbed.packing import Writer, pack


@dataclass
class Asked:
    text: str
    answer: str


@pytest.mark.parametrize("chained", [False, True])
def test_what_a_token_sees(chained):
    openings = [[1, 2, 3], [1, 2]]
    asked = [[([10, 11], [20]), ([12], [21, 22])], [([13], [23])]]
    packed = pack(openings, asked, [chained, False])
    assert packed.ids.tolist() == [[1, 2, 3, 10, 11, 20, 12, 21, 22], [1, 2, 13, 23, 0, 0, 0, 0, 0]]
    second = [6, 7, 8] if chained else [3, 4, 5]
    assert packed.positions[0].tolist() == [0, 1, 2, 3, 4, 5, *second]
    assert packed.positions[1, :4].tolist() == [0, 1, 2, 3]
    turns = [0, 0, 0, 1, 1, 1, 2, 2, 2]
    for q in range(9):
        for k in range(9):
            may = k <= q and (turns[k] in (0, turns[q]) or (chained and turns[k] < turns[q]))
            assert packed.mask[0, 0, q, k].item() == may, (q, k)
    assert not packed.mask[1, 0, :4, 4:].any()
    assert packed.ids.flatten()[packed.at + 1].tolist() == packed.targets.tolist() == [20, 21, 22, 23]
    assert packed.question.tolist() == [0, 1, 1, 2]


def test_rows_without_questions():
    packed = pack([[1, 2], [1]], [[], []], [False, True])
    assert packed.ids.tolist() == [[1, 2], [1, 0]] and not len(packed.targets) and packed.at.dtype == torch.long


def test_turns_are_those_of_the_chat_template():
    tokenizer = build_tokenizer()
    questions = [Asked("How many beeps are there?", "2"), Asked("Write down the digits.", "407")]
    writer = Writer(tokenizer)
    chat = []
    for q in questions:
        chat += [{"role": "user", "content": q.text}, {"role": "assistant", "content": q.answer}]
    expected = tokenizer.apply_chat_template(chat, tokenize=True, return_dict=False)
    got = [writer.bos, writer.user]
    for prompt, answer in writer.turns(questions, chained=True):
        got += prompt + answer
    assert got == expected
    alone = writer.turns(questions, chained=False)
    assert alone[1] == writer.turns(questions[1:], chained=True)[0]
