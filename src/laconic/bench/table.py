"""The table of a bench: in the terminal, as markdown, and as cells for the report."""

from __future__ import annotations

import math

from rich.box import SIMPLE_HEAD
from rich.table import Table

from laconic.bench.comparison import of_mode
from laconic.bench.specs import NONE
from laconic.bench.statistics import Interval
from laconic.bench.summary import Line

TABLE_FILE = "table.md"


def sections(lines: list[Line]) -> list[tuple[str, int]]:
    """(mode, length) in order."""
    return list(dict.fromkeys(line.section for line in lines))


def tasks(lines: list[Line]) -> list[str]:
    """Names of all tasks of the lines, in order."""
    return list(dict.fromkeys(task for line in lines for task in line.tasks))


def title(section: tuple[str, int]) -> str:
    """One section in words."""
    mode, length = section
    return of_mode(mode).title(mode, length)


def foot(lines: list[Line]) -> str:
    """What the columns of the sections mean."""
    return " ".join(dict.fromkeys(line.comparison.table.foot for line in lines))


def _around(lines: list[Line]) -> tuple[list[str], list[str]]:
    """Names of the columns before the tasks, and of those after them; a reference that nothing is compared with has none."""
    comparison = lines[0].comparison
    over = [f"vs {name}" for name in comparison.references if any(name in line.gains for line in lines)]
    first = [name for column in comparison.table.first for name in (over if column == "vs" else [column])]
    return first, list(comparison.table.last)


def head(lines: list[Line]) -> list[str]:
    """Column names for one section."""
    first, last = _around(lines)
    return [*first, *tasks(lines), *last]


def cells(line: Line, lines: list[Line]) -> list[str]:
    """The text of one line's columns; `lines`: those of its section."""
    none = line.method == NONE
    texts = {
        "method": "uncompressed" if none else line.method,
        "q": "q" if line.query_aware else "",
        "asked": "-" if none else line.budget.removeprefix("keep="),
        "kept": f"{line.achieved:.3f}",
        "KV": f"{100 * line.kv_share:.1f} %",
        "KV bytes": size(line.kv_bytes),
        "mean": spread(line.mean),
        "hard": "-" if line.hard is None or line.hard.mean is None else spread(line.hard.mean),
        "prefill FLOPs": flops(line),
        "first token": milliseconds(line.seconds["first_token"]),
        "per token": milliseconds(line.seconds["per_token"]),
        "compress": milliseconds(line.seconds["compress"]) if not none else "-",
        "n": str(line.samples),
    }
    texts |= {f"vs {name}": gain(line, name) for name in line.comparison.references}
    first, last = _around(lines)
    between = (task(line, name) for name in tasks(lines))
    return [*(texts[name] for name in first), *between, *(texts[name] for name in last)]


def task(line: Line, name: str) -> str:
    """A task's score, and where there are hard samples its score on them: ``93 / 71``."""
    if name not in line.tasks:
        return ""
    hard = line.hard.tasks.get(name) if line.hard else None
    return percent(line.tasks[name].mean) + (f" / {percent(hard.mean)}" if hard else "")


def flops(line: Line) -> str:
    """A share in percent; "≥" where the method's own work was not counted."""
    return f"{'' if line.flops_whole else '≥ '}{100 * line.flops_share:.{line.comparison.table.flops_digits}f} %"


def percent(share: float) -> str:
    return f"{100 * share:.0f}"


def spread(interval: Interval) -> str:
    """``62 [50, 75]`` in percent."""
    return f"{percent(interval.mean)} [{percent(interval.low)}, {percent(interval.high)}]"


def gain(line: Line, over: str) -> str:
    """``+31 [+12, +50]`` in points of percent, with a dagger where the cost is not the same."""
    if over not in line.gains:
        return "-"
    found = line.gains[over]
    mean, low, high = (f"{round(100 * x):+d}" if round(100 * x) else "0" for x in vars(found.interval).values())
    return f"{mean} [{low}, {high}]{'' if found.fair else ' †'}"


def tone(line: Line, column: str) -> str:
    """``"good"`` or ``"bad"`` where the interval of a column such as "vs random" excludes 0."""
    found = line.gains.get(column.removeprefix("vs "))
    if found is None:
        return ""
    return "good" if found.interval.low > 0 else "bad" if found.interval.high < 0 else ""


def size(count: float) -> str:
    """Bytes in binary units with three digits."""
    unit = min(3, int(math.log2(count) // 10)) if count >= 1 else 0
    value = count / 1024**unit
    return f"{value:.{0 if unit == 0 or value >= 100 else 1}f} {('B', 'KiB', 'MiB', 'GiB')[unit]}"


def milliseconds(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{1000 * seconds:.{0 if seconds >= 0.1 else 1}f} ms"


def rich_table(lines: list[Line], section: tuple[str, int], width: int = 160) -> Table:
    """One section for the terminal; a narrow one gets the columns that matter most and says which are missing."""
    own = [line for line in lines if line.section == section]
    names, texts = head(own), [cells(line, own) for line in own]
    some = list(reversed(tasks(own)))
    spare = [name for column in own[0].comparison.table.spare for name in (some if column == "tasks" else [column])]
    show = _fitting(names, texts, width, spare)
    table = Table(title=title(section), title_justify="left", title_style="bold", header_style="bold", box=SIMPLE_HEAD)
    if missing := [name for i, name in enumerate(names) if i not in show]:
        table.caption = f"only in {TABLE_FILE}, for lack of room: {', '.join(missing)}"
    for i in show:
        table.add_column(names[i], justify="left" if i < 2 else "right", no_wrap=i > 0, overflow="fold")
    for number, line in enumerate(own):
        again = number > 0 and own[number - 1].method == line.method
        if number and not again:
            table.add_section()
        cut = [_coloured(names[i], texts[number][i], line) for i in show]
        table.add_row("" if again else cut[0], *cut[1:])
    return table


def _fitting(names: list[str], texts: list[list[str]], width: int, spare: list[str]) -> list[int]:
    """Columns that a terminal of `width` has room for; those of `spare` are dropped, starting with the first."""
    widths = [max(len(row[i]) for row in [names, *texts]) + 3 for i in range(len(names))]
    show = set(range(len(names)))
    for name in (name for name in spare if name in names):
        if sum(widths[i] for i in show) < width:
            break
        show.discard(names.index(name))
    return sorted(show)


def _coloured(name: str, text: str, line: Line) -> str:
    text = text.replace("[", r"\[")  # not markup
    style = {"good": "green", "bad": "red", "": ""}[tone(line, name)]
    return f"[{style}]{text}[/]" if style else text


def markdown(lines: list[Line]) -> str:
    """All sections as markdown tables."""
    parts = []
    for section in sections(lines):
        own = [line for line in lines if line.section == section]
        names = head(own)
        parts += [f"## {title(section)}", ""]
        parts += ["| " + " | ".join(names) + " |", "|---|---|" + "---:|" * (len(names) - 2)]
        parts += ["| " + " | ".join(cells(line, own)) + " |" for line in own]
        parts.append("")
        for name, columns, rows in official_tables(own):
            parts += [f"### {name}: its own figures", "", "| " + " | ".join(columns) + " |"]
            parts += ["|---|---|" + "---:|" * (len(columns) - 2), *("| " + " | ".join(row) + " |" for row in rows), ""]
    return "\n".join([*parts, foot(lines), ""])


def official_tables(lines: list[Line]) -> list[tuple[str, list[str], list[list[str]]]]:
    """(task, column names, rows) of the tasks of one section that have figures of their own."""
    found = []
    for name in tasks(lines):
        own = [(line, line.figures[name]) for line in lines if name in line.figures]
        names = list(dict.fromkeys(figure for _, figures in own for figure in figures))
        rows = []
        for line, figures in own:
            method, _, asked = cells(line, lines)[:3]
            rows.append([method, asked, *(f"{figures[x]:.2f}" if x in figures else "" for x in names)])
        if own:
            found.append((name, ["method", "asked", *names], rows))
    return found
