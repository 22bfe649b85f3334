"""A sample of text as the turns of a chat and as token ids, cut where its context ends and where its turns do."""

from typing import Any

from laconic.prompts.text import JOINT
from laconic.tasks.task import Sample


def messages(sample: Sample, turn: int = 0, prefix: bool = False, system: str | None = None) -> list[dict[str, str]]:
    """Chat messages up to question `turn`; earlier turns have their gold answers.

    Pass them to ``tokenizer.apply_chat_template`` with ``add_generation_prompt=True``; with ``prefix=True`` the last message
    opens the answer (RULER's answer prefix), and ``continue_final_message=True`` is the flag to use.
    """
    chat = [{"role": "system", "content": system}] if system else []
    for i, asked in enumerate(sample.turns[: turn + 1]):
        question = sample.context + JOINT + asked.question if i == 0 else asked.question
        chat.append({"role": "user", "content": question})
        if i < turn:
            chat.append({"role": "assistant", "content": asked.gold})
    if prefix:
        chat.append({"role": "assistant", "content": sample.turns[turn].prefix})
    return chat


def _render(tokenizer: Any, chat: list[dict[str, str]]) -> list[int]:
    opened = chat[-1]["role"] == "assistant"
    text = tokenizer.apply_chat_template(
        chat, tokenize=False, add_generation_prompt=not opened, continue_final_message=opened
    )
    return tokenizer.encode(text, add_special_tokens=False)


def prompt_ids(sample: Sample, tokenizer: Any, turn: int = 0, prefix: bool = True) -> tuple[list[int], list[int]]:
    """Token ids of the prompt of `turn`, cut after the context: ``(context_ids, question_ids)``.

    Their concatenation is the whole prompt, so a context may be compressed before its question is known. For later turns the
    question part holds the earlier turns too, with their gold answers.

    Raises:
        ValueError: the tokenizer merges tokens across the cut.
    """
    full = _render(tokenizer, messages(sample, turn, prefix))
    text = tokenizer.apply_chat_template([{"role": "user", "content": sample.context}], tokenize=False)
    opening = text[: text.rindex(sample.context) + len(sample.context)]
    context = tokenizer.encode(opening, add_special_tokens=False)
    if full[: len(context)] != context:
        raise ValueError("the tokenizer merges tokens across the end of the context; cut the prompt's ids elsewhere")
    return context, full[len(context) :]


def gold_ids(sample: Sample, tokenizer: Any, turn: int = 0, prefix: bool = True) -> list[int]:
    """Token ids of the reference answer of `turn` and its end-of-turn token, as they follow `prompt_ids`.

    With ``prefix=True`` the answer prefix is left out, since the prompt ends in it.
    """
    asked = sample.turns[turn]
    rest = asked.gold.removeprefix(asked.prefix) if prefix else asked.gold
    return [*tokenizer.encode(rest, add_special_tokens=False), tokenizer.eos_token_id]


def turn_ids(sample: Sample, tokenizer: Any, turn: int, prefix: bool = True) -> list[int]:
    """Token ids to append for question `turn` (from 1 on) after the previous answer's end-of-turn token.

    The previous answer is taken to be complete, with its end-of-turn token, as `gold_ids` gives it.

    Raises:
        ValueError: the sample has no such later turn.
    """
    if not 1 <= turn < len(sample.turns):
        raise ValueError(f"turn={turn} is not a later turn; this sample has turns 1 to {len(sample.turns) - 1}")
    before = _render(tokenizer, messages(sample, turn - 1, True))
    return _render(tokenizer, messages(sample, turn, prefix))[len(before) + len(gold_ids(sample, tokenizer, turn - 1)) :]
