"""Trains the testbed tokenizer: byte-level BPE of 4,096 tokens, so that any UTF-8 text round-trips without unknowns.

Pre-tokenisation follows Llama 3 (digits in groups of one to three, without a leading space) but for one change: a line break
never joins the punctuation before it. Text that ends in a visible character, followed by a line break, is therefore always
tokenised as if the two parts were separate; the tasks rely on it to compress a context before its question is known.
"""

from pathlib import Path

from transformers import PreTrainedTokenizerFast

from laconic.tasks.text import corpus
from laconic.tasks.text.words import NOUNS
from laconic.testbed.bpe import train_bpe

VOCAB_SIZE = 4096
SPECIALS = ("<pad>", "<s>", "</s>", "<|system|>", "<|user|>", "<|assistant|>")
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "<|{{ message['role'] }}|>{{ message['content'] }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
# Enough repetitions that every merge inside a digit group or a key noun is learned before rare prose merges.
DIGIT_WEIGHT, NOUN_WEIGHT = 400, 4000
PHRASES = (
    "Question: What are the codes for it? What is the code? The codes\n"
    "Which names hold it? Put it Copy it into\nWhat\nPut\nCopy"
)


def train() -> PreTrainedTokenizerFast:
    """Train on the corpus, all three-digit groups and the key nouns; raises ``RuntimeError`` if one of those
    is split.
    """
    groups = " ".join(f"{i:03d}" for i in range(1000))
    nouns = " " + " ".join(NOUNS)
    text = [line for kind in corpus.KINDS for line in corpus.lines(kind)]
    breaks = ["\n", "\n\n", PHRASES] * NOUN_WEIGHT
    lines = [*text, *breaks, *[groups] * DIGIT_WEIGHT, *[nouns] * NOUN_WEIGHT]
    tokenizer = train_bpe(lines, SPLIT, VOCAB_SIZE, SPECIALS, CHAT_TEMPLATE)
    pieces = [*groups.split(), *(f" {noun}" for noun in NOUNS), "\n", "\n\n", " "]
    broken = [piece for piece in pieces if len(tokenizer.encode(piece, add_special_tokens=False)) != 1]
    if broken:
        raise RuntimeError(f"{len(broken)} pieces are not single tokens (first: {broken[:8]}); raise their weight")
    return tokenizer


def save(folder: Path) -> PreTrainedTokenizerFast:
    """Train and write ``tokenizer.json`` and ``tokenizer_config.json`` into ``folder``."""
    tokenizer = train()
    tokenizer.save_pretrained(folder, save_jinja_files=False)
    return tokenizer
