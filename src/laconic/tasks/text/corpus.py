"""Natural text that comes with every Python installation: the haystacks, and what the testbed's tokenizer is trained on.

Two kinds of document: ``prose`` (the help topics of ``pydoc_data`` and the docstrings of a fixed list of standard modules)
and ``code`` (source lines of a few of those modules). About one document in eight is held out: never read in training, used
as haystack in every evaluation. The text follows the Python version that runs, so samples are reproducible per minor
version of Python.
"""

import hashlib
import importlib
import inspect
import re
import warnings
from functools import lru_cache

_MODULES = """
argparse ast asyncio bisect calendar collections configparser contextlib copy csv ctypes dataclasses
datetime decimal difflib email enum fractions functools gettext glob gzip hashlib heapq hmac http.client
http.server imaplib inspect io ipaddress itertools json locale logging mailbox math multiprocessing
operator optparse os pathlib pdb pickle platform plistlib poplib pprint queue random re sched secrets
selectors shelve shlex shutil signal smtplib socket sqlite3 ssl statistics string struct subprocess
tarfile tempfile textwrap threading timeit tokenize traceback types typing unittest urllib.parse
urllib.request uuid warnings wave weakref xml.dom zipfile zoneinfo
"""
_SOURCES = """
argparse calendar configparser csv difflib fractions heapq imaplib json.decoder mailbox shlex statistics
textwrap zipfile
"""
MODULES, SOURCES = tuple(_MODULES.split()), tuple(_SOURCES.split())
KINDS = ("prose", "code")
HELD_OUT_SHARE = 8
MAX_LINE_CHARS = 100


def _clean(text: str) -> tuple[str, ...]:
    """Lines without trailing spaces and tabs; rulers of one repeated sign and overlong lines are left out."""
    lines = (line.rstrip() for line in text.expandtabs(4).splitlines())
    return tuple(
        line
        for line in lines
        if line.strip() and len(line) <= MAX_LINE_CHARS and not re.fullmatch(r"\s*([^\w\s])\1{2,}", line)
    )


def _docstrings(module: object, name: str) -> list[tuple[str, str]]:
    """(name, docstring) of a module, its public classes and functions, and their public methods."""
    found = [(name, getattr(module, "__doc__", None))]
    for attribute, value in sorted(vars(module).items()):
        if attribute.startswith("_") or not callable(value) or getattr(value, "__module__", name) != name:
            continue
        found.append((f"{name}.{attribute}", getattr(value, "__doc__", None)))
        if inspect.isclass(value):
            for member, function in sorted(vars(value).items()):
                if not member.startswith("_"):
                    found.append((f"{name}.{attribute}.{member}", getattr(function, "__doc__", None)))
    return [(where, doc) for where, doc in found if isinstance(doc, str) and len(doc) > 80]


@lru_cache
def _all(kind: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
    if kind == "prose":
        from pydoc_data.topics import topics

        raw = [(f"topic {key}", topics[key]) for key in sorted(topics)]
        with warnings.catch_warnings():
            # Reading a deprecated name, such as typing.io, raises a warning.
            warnings.simplefilter("ignore", DeprecationWarning)
            for name in MODULES:
                raw += _docstrings(importlib.import_module(name), name)
    else:
        raw = [(name, inspect.getsource(importlib.import_module(name))) for name in SOURCES]
    # A docstring that several names share (aliases, inherited ones) must not be on both sides of the split.
    seen: dict[str, str] = {}
    for name, text in raw:
        seen.setdefault(text, name)
    return tuple((name, lines) for text, name in seen.items() if (lines := _clean(text)))


@lru_cache
def documents(kind: str = "prose", held_out: bool = False) -> tuple[tuple[str, ...], ...]:
    """The documents of one kind, each a tuple of cleaned lines, in a fixed order.

    Args:
        held_out: the evaluation part (about 1 document in 8, by a hash of the document's name), else the training part; the
            two never overlap.

    Raises:
        ValueError: an unknown kind.
    """
    if kind not in KINDS:
        raise ValueError(f"kind={kind!r} is unknown; choose one of {', '.join(KINDS)}")
    chosen = []
    for name, lines in _all(kind):
        digest = hashlib.sha256(name.encode()).digest()
        if (digest[0] % HELD_OUT_SHARE == 0) == held_out:
            chosen.append(lines)
    return tuple(chosen)


@lru_cache
def lines(kind: str = "prose", held_out: bool = False) -> tuple[str, ...]:
    """All lines of `documents` in order: a haystack is a window of these."""
    return tuple(line for document in documents(kind, held_out) for line in document)


@lru_cache
def common_words() -> tuple[str, ...]:
    """Lower-case words of 4 to 10 letters of the training prose, sorted: the pool of unusual keys."""
    text = " ".join(lines("prose"))
    return tuple(sorted(set(re.findall(r"(?<= )[a-z]{4,10}(?= )", text))))
