"""The frame of every HTML page of laconic: dark and light, style and script inside, nothing loaded from outside."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from importlib.resources import files


def asset(*names: str) -> str:
    """Files of `report/assets`, style sheets or scripts, joined in the order given."""
    folder = files("laconic.report") / "assets"
    return "".join(folder.joinpath(*name.split("/")).read_text(encoding="utf-8") for name in names)


def page(title: str, body_html: str, *, style: str = "", script: str = "") -> str:
    """One complete HTML document.

    Args:
        title: plain text; escaped here.
        body_html: finished HTML; the caller escapes whatever is not markup. It follows the heading with the title.
        style: more CSS, after `assets/page.css`, whose variables it can use.
        script: JavaScript for the end of the body, without the tags.
    """
    title = escape(title)
    tail = f"<script>\n{script}\n</script>\n" if script else ""
    return (
        "<!doctype html>\n"
        f'<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{title}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>\n{asset('page.css')}{style}</style>\n</head>\n<body>\n<h1>{title}</h1>\n{body_html}\n{tail}</body>\n</html>\n"
    )


def facts(pairs: Iterable[tuple[str, str]], warnings: Iterable[str] = ()) -> str:
    """What a page is about, as (label, text) pairs, with warnings in red below; escaped. Style: `assets/inspect.css`."""
    terms = "".join(f"<dt>{escape(name)}</dt><dd>{escape(visible(text))}</dd>" for name, text in pairs)
    red = "".join(f'<p class="bad">warning: {escape(text)}</p>' for text in warnings)
    return f'<dl class="card facts">{terms}</dl>{red}'


def visible(text: str) -> str:
    """Control characters as the symbols that Unicode has for them; line breaks and tabs stay."""
    return "".join(chr(0x2400 + ord(c)) if ord(c) < 32 and c not in "\n\t" else "\u2421" if c == "\x7f" else c for c in text)


def table(head: list[str], rows: list[list[object]], *, caption: str = "") -> str:
    """A plain table; cells are escaped, columns of numbers are aligned to the right."""
    numeric = [all(_number(row[i]) for row in rows) for i in range(len(head))]
    top = "".join(f"<th{' class=num' if n else ''}>{escape(h)}</th>" for h, n in zip(head, numeric, strict=True))
    body = "".join("<tr>" + "".join(_cell(c) for c in row) + "</tr>\n" for row in rows)
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    return f'<div class="scroll"><table>{title}<thead><tr>{top}</tr></thead>\n<tbody>{body}</tbody></table></div>'


def _number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _cell(value: object) -> str:
    return f"<td{' class=num' if _number(value) else ''}>{escape(str(value))}</td>"
