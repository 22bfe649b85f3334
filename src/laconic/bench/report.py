"""report.html: accuracy against cost per task, the table, settings, versions, machine; one self-contained file."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from html import escape
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from laconic.bench.specs import NONE
from laconic.bench.statistics import Interval
from laconic.bench.store import Row
from laconic.bench.summary import Line
from laconic.bench.table import cells, foot, head, official_tables, sections, tasks, title, tone
from laconic.report.page import asset, page

# Okabe and Ito's colours, safe for colour-blind readers, without yellow. Markers and dashes tell methods apart too.
COLOURS = ("#000000", "#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("x", "circle", "square", "diamond", "triangle-up", "star", "triangle-down", "cross", "hexagon", "pentagon")
DASHES = ("solid", "dash", "dot", "dashdot")
GREY = "#6a7078"
COLUMNS = 3
PANEL = 340


def report(lines: list[Line], rows: list[Row]) -> str:
    """The whole HTML document.

    Args:
        lines: from `summarise(rows)`.
        rows: at least one; the first one's settings and machine are shown.
    """
    first = rows[0]
    body = [f"<p>{escape(intro(lines, rows))}</p>"]
    for number, section in enumerate(sections(lines)):
        own = [line for line in lines if line.section == section]
        body += [
            f"<h2>{escape(title(section))}</h2>",
            f'<div class="chart" style="--panels:{_across(own)}">{chart(own, scripts=number == 0)}</div>',
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


def chart(lines: list[Line], scripts: bool) -> str:
    """Recall against cost, a panel per task and one for the mean; one legend. `scripts` includes plotly's own code."""
    places = panels(tasks(lines))
    count, columns = max(p.row for p in places), max(p.col for p in places)
    wide = count > 1 and places[0].task is None
    specs: list[list[dict[str, int] | None]] = [[{} for _ in range(columns)] for _ in range(count)]
    if wide:
        specs[0] = [{"colspan": columns}, *[None] * (columns - 1)]
    titles = [panel.task or "mean of the tasks" for panel in places]
    gaps = {"horizontal_spacing": 0.06, "vertical_spacing": 0.27 / count}
    figure = make_subplots(count, columns, specs=specs, subplot_titles=titles, **gaps)
    methods = [m for m in dict.fromkeys(line.method for line in lines) if m != NONE]
    for panel in places:
        where = {"row": panel.row, "col": panel.col}
        for number, method in enumerate(methods):
            figure.add_trace(
                _curve([x for x in lines if x.method == method], panel.task, number, panel is places[0]), **where
            )
        full = next((x for x in lines if x.method == NONE), None)
        if full is not None and (interval := _interval(full, panel.task)) is not None:
            _ceiling(figure, interval, panel is places[0], where)
    _axes(figure, lines, places, columns, wide)
    legend = {"orientation": "h", "y": 1 + 60 / (PANEL * count), "yanchor": "bottom", "x": 0}
    margin = {"t": 110, "b": 50, "l": 55, "r": 20}
    figure.update_layout(
        height=PANEL * count + 120, template="plotly_white", legend=legend, margin=margin, font={"size": 13}
    )
    return figure.to_html(full_html=False, include_plotlyjs=scripts, config={"displayModeBar": False, "responsive": True})


@dataclass(frozen=True)
class Panel:
    """One small chart: of a task, or of the mean over all (None)."""

    task: str | None
    row: int
    col: int


def panels(names: list[str]) -> list[Panel]:
    """Where the panels stand: the mean before the tasks, in a row of its own when there are many."""
    if len(names) == 1:
        return [Panel(names[0], 1, 1)]
    if len(names) < COLUMNS:
        return [Panel(name, 1, col) for col, name in enumerate([None, *names], 1)]
    below = [Panel(name, 2 + i // COLUMNS, 1 + i % COLUMNS) for i, name in enumerate(names)]
    return [Panel(None, 1, 1), *below]


def _across(lines: list[Line]) -> int:
    """Panels side by side; the style keeps each of them wide enough for its axis."""
    return max(panel.col for panel in panels(tasks(lines)))


def _interval(line: Line, task: str | None) -> Interval | None:
    return line.mean if task is None else line.tasks.get(task)


def _curve(lines: list[Line], task: str | None, number: int, legend: bool) -> go.Scatter:
    """One method in one panel, with its intervals as bars and the figures on hover."""
    points = [(line, interval) for line in lines if (interval := _interval(line, task)) is not None]
    points.sort(key=lambda pair: pair[0].cost)
    words = lines[0].comparison.words
    colour = COLOURS[number % len(COLOURS)]
    method = lines[0].method
    return go.Scatter(
        name=method,
        legendgroup=method,
        showlegend=legend,
        x=[100 * line.cost for line, _ in points],
        y=[100 * interval.mean for _, interval in points],
        error_y={
            "type": "data",
            "symmetric": False,
            "array": [100 * (i.high - i.mean) for _, i in points],
            "arrayminus": [100 * (i.mean - i.low) for _, i in points],
            "thickness": 0.8,
            "width": 3,
        },
        mode="lines+markers",
        line={"color": colour, "dash": DASHES[number // len(COLOURS) % len(DASHES)], "width": 2},
        marker={"symbol": MARKERS[number % len(MARKERS)], "size": 8, "color": colour},
        customdata=[[line.budget, line.achieved, 100 * i.low, 100 * i.high] for line, i in points],
        hovertemplate=(
            f"<b>%{{fullData.name}}</b><br>{words.score} %{{y:.1f}} % [%{{customdata[2]:.1f}}, %{{customdata[3]:.1f}}]<br>"
            f"{words.short_cost} %{{x:.2f}} %<br>"
            "asked %{customdata[0]}, kept %{customdata[1]:.4f}<extra></extra>"
        ),
    )


def _ceiling(figure: go.Figure, interval: Interval, legend: bool, where: dict[str, int]) -> None:
    """The uncompressed model as a dashed line over the panel."""
    low, high = 100 * interval.low, 100 * interval.high
    if high > low:
        figure.add_hrect(low, high, fillcolor=GREY, opacity=0.12, line_width=0, **where)
    figure.add_trace(
        go.Scatter(
            name="uncompressed",
            legendgroup=NONE,
            showlegend=legend,
            x=[1, 100],
            y=[100 * interval.mean] * 2,
            mode="lines",
            line={"color": GREY, "dash": "dash", "width": 2},
            hovertemplate=f"<b>uncompressed</b><br>recall %{{y:.1f}} % [{low:.1f}, {high:.1f}]<extra></extra>",
        ),
        **where,
    )


def _axes(figure: go.Figure, lines: list[Line], places: list[Panel], columns: int, wide: bool) -> None:
    """Logarithmic share of the cost, recall from 0 to 100; titles at the outer panels only."""
    words = lines[0].comparison.words
    low = min(70 * min(line.cost for line in lines), 50)
    ticks = [t for t in (1, 2, 5, 10, 20, 50, 100) if t >= low]
    ends = [math.log10(low), math.log10(115)]
    figure.update_xaxes(type="log", tickvals=ticks, ticktext=[f"{t} %" for t in ticks], range=ends)
    figure.update_yaxes(range=[-4, 106], tickvals=[0, 25, 50, 75, 100])
    lowest = {panel.col: panel.row for panel in places}
    for panel in places:
        where = {"row": panel.row, "col": panel.col}
        if lowest[panel.col] == panel.row or (wide and panel.row == 1):
            figure.update_xaxes(title_text=f"{words.cost} of uncompressed", title_standoff=6, **where)
        if panel.col == 1:
            figure.update_yaxes(title_text=f"{words.score}, %", title_standoff=4, **where)


def html_table(lines: list[Line]) -> str:
    """One section as an HTML table; a rule before each method."""
    names = head(lines)
    out = ['<div class="scroll"><table><thead><tr>']
    out += [f"<th{_align(i)}>{escape(name)}</th>" for i, name in enumerate(names)]
    out.append("</tr></thead><tbody>")
    previous = None
    for line in lines:
        out.append("<tr>" if line.method == previous else '<tr class="first">')
        for i, text in enumerate(cells(line, tasks(lines))):
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
            texts[line.method] = own + (" (query-aware)" if line.query_aware else "")
    return definitions(texts, blank="")


def definitions(pairs: dict[str, Any], blank: str = "_") -> str:
    """A list of names and values; `blank` in a name is shown as a space."""
    shown = {k.replace(blank, " ") if blank else k: "none" if v is None else v for k, v in pairs.items()}
    items = "".join(f"<dt>{escape(str(k))}</dt><dd>{escape(str(v))}</dd>" for k, v in shown.items())
    return f"<dl>{items}</dl>"
