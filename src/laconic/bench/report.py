"""report.html: accuracy against cost per task, the table, settings, versions, machine; one self-contained file."""

from __future__ import annotations

import json
from html import escape
from typing import Any

from laconic.bench.chart import charts
from laconic.bench.specs import NONE
from laconic.bench.store import Row
from laconic.bench.summary import Line
from laconic.bench.table import cells, foot, head, official_tables, sections, tasks, title, tone
from laconic.report.page import asset, page


def report(lines: list[Line], rows: list[Row]) -> str:
    """The whole HTML document.

    Args:
        lines: from `summarise(rows)`.
        rows: at least one; the first one's settings and machine are shown.
    """
    first = rows[0]
    body = [f"<p>{escape(intro(lines, rows))}</p>"]
    for section in sections(lines):
        own = [line for line in lines if line.section == section]
        body += [
            f"<h2>{escape(title(section))}</h2>",
            charts(own),
            html_table(own),
        ]
        for name, columns, texts in official_tables(own):
            body += [f"<h3>{escape(name)}: its own figures</h3>", _plain_table(columns, texts)]
    body += [f'<p class="dim">{escape(foot(lines))}</p>', "<h2>Settings</h2>", definitions(settings(lines, rows))]
    body += ["<h2>Methods and parameters</h2>", parameters(lines)]
    body += ["<h2>Versions</h2>", definitions(first["settings"]["versions"])]
    machines = list({json.dumps(row["machine"], sort_keys=True): row["machine"] for row in rows}.values())
    for number, found in enumerate(machines, 1):
        body += [f"<h2>Machine{f' {number}' if len(machines) > 1 else ''}</h2>", definitions(found)]
    return page(f"laconic bench: {first['settings']['model']}", "\n".join(body), style=asset("bench.css"))


def intro(lines: list[Line], rows: list[Row]) -> str:
    """What was compared, in two sentences."""
    methods = len({line.method for line in lines} - {NONE})
    samples = len({(row["task"], row["length"], row["mode"], row["seed"]) for row in rows})
    spent = lines[0].comparison.words.spent
    return (
        f"{methods} methods on {len(tasks(lines))} tasks, {samples} samples, {len(rows)} rows. Every method saw the same "
        f"samples; points are plotted at the {spent}, not at what it was asked for. "
        "Up and to the left is better."
    )


def html_table(lines: list[Line]) -> str:
    """One section as an HTML table; a rule before each method."""
    names = head(lines)
    out = ['<div class="scroll"><table><thead><tr>']
    out += [f"<th{_align(i)}>{escape(name)}</th>" for i, name in enumerate(names)]
    out.append("</tr></thead><tbody>")
    previous = None
    for line in lines:
        out.append("<tr>" if line.method == previous else '<tr class="first">')
        for i, text in enumerate(cells(line, lines)):
            out.append(f"<td{_align(i, tone(line, names[i]))}>{escape(text)}</td>")
        out.append("</tr>")
        previous = line.method
    return "".join([*out, "</tbody></table></div>"])


def _plain_table(names: list[str], rows: list[list[str]]) -> str:
    """A table of texts without tones or rules."""
    parts = [[f"<th{_align(i)}>{escape(name)}</th>" for i, name in enumerate(names)]]
    parts += [[f"<td{_align(i)}>{escape(text)}</td>" for i, text in enumerate(row)] for row in rows]
    body = "".join("<tr>" + "".join(part) + "</tr>" for part in parts)
    return f'<div class="scroll"><table>{body}</table></div>'


def _align(column: int, look: str = "") -> str:
    names = " ".join(filter(None, ["num" if column > 1 else "", look]))
    return f' class="{names}"' if names else ""


def settings(lines: list[Line], rows: list[Row]) -> dict[str, Any]:
    """The settings that all rows share."""
    first = rows[0]
    common = {k: v for k, v in first["settings"].items() if k not in ("versions", "parameters", "budget")}
    seeds = sorted({row["seed"] for row in rows})
    memory = max(row["peak_memory"] for row in rows)
    kinds = ", ".join(sorted({row["peak_memory_kind"] for row in rows}))
    return common | {
        "tasks": ", ".join(tasks(lines)),
        "sample seeds": f"{seeds[0]} to {seeds[-1]} ({len(seeds)}), the same for every method",
        "intervals": f"95 %, bootstrap over samples inside each task, 2,000 draws, seed {first['grid_seed']}",
        "peak memory": f"{memory / 2**20:.0f} MiB ({kinds})",
        "missed budgets": missed(lines) or "none",
    }


def missed(lines: list[Line]) -> str:
    """Methods that kept over 2 % more or less of the entries than asked, with what they kept."""
    found: dict[str, list[float]] = {}
    for line in lines:
        if abs(line.achieved - line.asked) > 0.02 * line.asked:
            found.setdefault(f"{line.method} asked {line.budget}", []).append(line.achieved)
    return "; ".join(f"{name}, kept {min(kept):.3f} to {max(kept):.3f}" for name, kept in found.items())


def parameters(lines: list[Line]) -> str:
    """Each method's parameters, once."""
    texts = {}
    for line in lines:
        if line.method != NONE:
            own = ", ".join(f"{k}={v}" for k, v in line.parameters.items()) or "none of its own"
            texts[line.method] = own + (" (looks at the question)" if line.query_aware else "")
    return definitions(texts, blank="")


def definitions(pairs: dict[str, Any], blank: str = "_") -> str:
    """A list of names and values; `blank` in a name is shown as a space."""
    shown = {k.replace(blank, " ") if blank else k: "none" if v is None else v for k, v in pairs.items()}
    items = "".join(f"<dt>{escape(str(k))}</dt><dd>{escape(str(v))}</dd>" for k, v in shown.items())
    return f"<dl>{items}</dl>"
