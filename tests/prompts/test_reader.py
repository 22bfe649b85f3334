"""The tokenizer of a tokenizer, and of a processor."""

import laconic
from laconic.loading import tokenizer_of as of_loading
from laconic.prompts.reader import tokenizer_of


def test_a_processor_has_one_and_a_tokenizer_is_one():
    _, processor = laconic.load("testbed/vlm")
    assert tokenizer_of(processor) is processor.tokenizer
    assert tokenizer_of(processor.tokenizer) is processor.tokenizer
    assert of_loading is tokenizer_of
