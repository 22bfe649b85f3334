"""Tokenizers of the testbeds take any text apart and put it together again."""

from laconic.testbed.bpe import train_bpe

SPECIALS = ("<pad>", "<s>", "</s>", "<user>")


def test_any_text_comes_back_and_words_are_not_merged_with_each_other():
    tokenizer = train_bpe(["low lower lowest "] * 50, r" ?\w+|\W", 280, SPECIALS, "{{ messages }}")
    for text in ("low lowest", "Grüße 🦊", " a\n\tb "):
        assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text
    assert len(tokenizer.encode(" lower", add_special_tokens=False)) < len(" lower")
    assert all(" " not in tokenizer.decode([i]).strip() for i in range(len(tokenizer)))
    assert (tokenizer.pad_token, tokenizer.bos_token, tokenizer.eos_token) == SPECIALS[:3]
    assert tokenizer.encode("<user>", add_special_tokens=False) == [3] and tokenizer.padding_side == "left"
