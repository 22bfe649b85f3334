"""Lists of words."""

import pytest

from laconic.methods.lens.tokens_to_thoughts.words import Words

GOOD = "item,category,typicality\nrobin,bird,1\npenguin,bird,5\nchair,furniture,1\nrug,furniture,4\n"


def written(tmp_path, text):
    (tmp_path / "words.csv").write_text(text)
    return tmp_path / "words.csv"


def test_items_categories_and_norms(tmp_path):
    words = Words.load(written(tmp_path, GOOD), lower_is_typical=True)
    assert words.items == ("robin", "penguin", "chair", "rug") and words.names == ("bird", "furniture")
    assert words.labels.tolist() == [0, 0, 1, 1] and words.typicality.tolist() == [-1, -5, -1, -4]
    assert Words.load(written(tmp_path, GOOD)).typicality.tolist() == [1, 5, 1, 4]
    plain = Words.load(written(tmp_path, "category,item\na,x\na,y\nb,z\nb,w\n"))
    assert plain.typicality is None and plain.items == ("x", "y", "z", "w")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must name the columns item, category"),
        ("word,class\na,b\n", "must name the columns item, category"),
        ("item,category\na,x\nb,x\n", "two categories or more"),
        ("item,category\na,x\nb,x\nc,y\n", "two categories or more, each with two items or more"),
        ("item,category,typicality\na,x,1\nb,x,high\nc,y,2\nd,y,3\n", "a typicality is no number"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        Words.load(written(tmp_path, text))


def test_no_file(tmp_path):
    with pytest.raises(ValueError, match=r"words='.*none\.csv' cannot be read: No such file"):
        Words.load(tmp_path / "none.csv")
