"""Methods that shorten text go into a session only when that is done."""

import pytest
from helpers.text_tools import TEXT

import laconic
from laconic.shortening.contract import seconds_spent, to_apply
from laconic.shortening.shorten import shorten


def test_what_is_done_is_not_applied_again():
    method = laconic.TruncateText(keep=0.5)
    done = method.after(shorten(TEXT, method))
    assert to_apply([method, laconic.Random(), done]) == [method] and to_apply(None) == []
    assert method.done is None and done.done is not None and str(done) == str(method)
    assert seconds_spent([method, done, laconic.Random()]) == done.done.seconds > 0 and seconds_spent(None) == 0


def test_strings_are_given_alone_or_in_a_list():
    assert laconic.TruncateText(force=".").forced_strings == (".",)
    assert (
        laconic.TruncateText(force=["a", "b"]).forced_strings == ("a", "b") and laconic.TruncateText().forced_strings == ()
    )


def test_one_method_is_preferred():
    known = [entry.cls for entry in laconic.list_methods() if entry.site == "prompt"]
    assert all(issubclass(cls, laconic.PromptMethod) for cls in known) and sum(cls.preferred for cls in known) == 1


def test_compress_names_the_verbs(llama):
    with pytest.raises(laconic.SessionError, match=r"laconic.shorten\(text, 'truncate_text'\).*`laconic compress`"):
        laconic.compress(llama, "truncate_text:keep=0.5")
