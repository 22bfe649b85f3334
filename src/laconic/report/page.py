"""`page(title, body)`: the frame of every HTML page of laconic: inline CSS, dark and light, nothing loaded from outside."""

from __future__ import annotations

from html import escape

CSS = """
:root { color-scheme: light dark; --bg: #fdfdfc; --fg: #1c1e21; --dim: #6a7078; --line: #dfe2e6; --card: #f4f5f7;
  --accent: #0b63ce; --good: #1a7f37; --bad: #b3261e; --heat: 11, 99, 206; }
@media (prefers-color-scheme: dark) { :root { --bg: #16181c; --fg: #e5e7eb; --dim: #9aa2ad; --line: #333840; --card: #1f2228;
  --accent: #74b0ff; --good: #57c278; --bad: #ff8a80; --heat: 96, 165, 250; } }
* { box-sizing: border-box; }
body { background: var(--bg); color: var(--fg); font: 15px/1.55 system-ui, "Segoe UI", "DejaVu Sans", sans-serif;
  margin: 0 auto; max-width: 74rem; padding: 1.5rem 1.25rem 4rem; }
h1 { font-size: 1.55rem; line-height: 1.25; margin: 0 0 1rem; }
h2 { font-size: 1.15rem; margin: 2rem 0 .6rem; }
h3 { font-size: 1rem; margin: 1.2rem 0 .4rem; }
a { color: var(--accent); }
p, ul { max-width: 55rem; }
code, pre, .mono { font-family: ui-monospace, "SF Mono", "DejaVu Sans Mono", Menlo, Consolas, monospace; font-size: .92em; }
pre { background: var(--card); border: 1px solid var(--line); border-radius: 6px; overflow-x: auto; padding: .7rem .9rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: .6rem 0; }
th, td { border-bottom: 1px solid var(--line); padding: .3rem .75rem; text-align: left; vertical-align: top; }
th { color: var(--dim); font-weight: 600; }
td.num, th.num { text-align: right; }
.scroll { overflow-x: auto; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: .8rem 1rem; }
.dim { color: var(--dim); }
.good { color: var(--good); } .bad { color: var(--bad); }
button, select, input { font: inherit; }
"""


def page(title: str, body_html: str, *, style: str = "", script: str = "") -> str:
    """One complete HTML document.

    Args:
        title: plain text; escaped here.
        body_html: finished HTML; whoever writes it escapes what is not markup. It comes below the title's heading.
        style: more CSS, after `CSS` (use its variables: --bg, --fg, --dim, --line, --card, --accent, --good, --bad, --heat).
        script: JavaScript for the end of the body; without the tags.
    """
    title = escape(title)
    tail = f"<script>\n{script}\n</script>\n" if script else ""
    return (
        "<!doctype html>\n"
        f'<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{title}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>{CSS}{style}</style>\n</head>\n<body>\n<h1>{title}</h1>\n{body_html}\n{tail}</body>\n</html>\n"
    )


def table(head: list[str], rows: list[list[object]], *, caption: str = "") -> str:
    """A plain table; cells are escaped, numbers and their headings stand to the right."""
    numeric = [all(_number(row[i]) for row in rows) for i in range(len(head))]
    top = "".join(f"<th{' class=num' if n else ''}>{escape(h)}</th>" for h, n in zip(head, numeric, strict=True))
    body = "".join("<tr>" + "".join(_cell(c) for c in row) + "</tr>\n" for row in rows)
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    return f'<div class="scroll"><table>{title}<thead><tr>{top}</tr></thead>\n<tbody>{body}</tbody></table></div>'


def _number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _cell(value: object) -> str:
    return f"<td{' class=num' if _number(value) else ''}>{escape(str(value))}</td>"
