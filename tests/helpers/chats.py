"""A sample's whole chat as token ids."""

from itertools import chain

from laconic.tasks.text.chat import gold_ids, prompt_ids, turn_ids


def joined(parts):
    return list(chain.from_iterable(parts))


def whole_chat(sample, tokenizer):
    """The prompt, and question by question what follows."""
    ids = joined(prompt_ids(sample, tokenizer)) + gold_ids(sample, tokenizer)
    for turn in range(1, len(sample.turns)):
        ids += turn_ids(sample, tokenizer, turn) + gold_ids(sample, tokenizer, turn)
    return ids
