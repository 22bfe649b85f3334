"""The page: a document or an image, a question, two ways to answer it, and what each kept and took."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from laconic.measure.units import size
from laconic.playground.choice import NONE, Choice, link, settings
from laconic.playground.client import Answer, PlaygroundError, Server

CSS = """
.kept { max-height: 22rem; overflow: auto; white-space: pre-wrap; overflow-wrap: anywhere; }
.kept { font-size: .85rem; line-height: 1.5; }
.kept del { opacity: .45; }
.kept mark { background: #cfe8d5; color: #12301c; }
.figures, .figures td { border: 0; }
.figures td { padding: .1rem .8rem .1rem 0; font-variant-numeric: tabular-nums; }
footer { display: none !important; }
"""
LONGEST = 200_000
"""Characters of a document that the page shows as kept and dropped."""


def page(url: str, documents: Path | None = None) -> gr.Blocks:
    """The page of the server at `url`, asked for its models and methods whenever the page is opened.

    Args:
        documents: a text that it opens with.
    """
    opening = "" if documents is None else documents.read_text(encoding="utf-8")
    with gr.Blocks(title="laconic playground", analytics_enabled=False) as blocks:
        gr.Markdown("# laconic\nOne question, two ways of reading: what was kept, what it took, what was answered.")
        with gr.Row():
            model = gr.Dropdown(label="Model", choices=[], allow_custom_value=True, elem_id="model")
            most = gr.Slider(8, 512, 64, step=8, label="Longest answer, tokens")
            key = gr.Textbox(label="Key, if the server wants one, and Enter", type="password", elem_id="key")
        with gr.Row():
            document = gr.Textbox(label="Document", value=opening, lines=10, max_lines=18, scale=3, elem_id="document")
            with gr.Column(scale=1, min_width=220):
                file = gr.File(label="... or a text file", file_types=["text"], type="filepath", height=110)
                image = gr.Image(label="... or an image", type="filepath", sources=["upload", "clipboard"], height=160)
        question = gr.Textbox(label="Question", elem_id="question", submit_btn=False)
        sides = []
        with gr.Row():
            for name in "ab":
                with gr.Column(min_width=300):
                    method = gr.Dropdown(label=f"Method {name.upper()}", choices=[NONE], elem_id=f"method-{name}")
                    keep = gr.Slider(0.02, 1, 0.25, step=0.01, label="Share kept", elem_id=f"keep-{name}")
                    more = gr.Textbox(label="Parameters, key=value, ...", elem_id=f"parameters-{name}")
                    sides.append([method, keep, more])
        ask = gr.Button("Ask", variant="primary", elem_id="ask")
        trouble = gr.Markdown(elem_id="trouble")
        outputs = []
        with gr.Row():
            for name in "ab":
                with gr.Column(min_width=300):
                    answer = gr.Textbox(label=f"Answer {name.upper()}", lines=3, interactive=False, elem_id=f"answer-{name}")
                    figures = gr.HTML(elem_id=f"figures-{name}")
                    kept = gr.HTML(elem_id=f"kept-{name}")
                    outputs.append([answer, figures, kept])
        label = "These settings, as what follows this page's address in a link; neither key nor document is in it"
        share = gr.Textbox(label=label, interactive=False, elem_id="link")

        def opened(secret: str, request: gr.Request) -> list[Any]:
            server = Server(url, secret or None)
            try:
                models, methods = server.models(), [NONE, *server.methods()]
                wanted, asked, *choices = settings(dict(request.query_params))
            except (PlaygroundError, ValueError) as error:
                return [gr.update()] * 8 + [_warned(error)]
            said: list[Any] = [gr.update(choices=models, value=wanted or next(iter(models), "")), asked]
            for choice in choices:
                known = choice.method if choice.method in methods else NONE
                said += [gr.update(choices=methods, value=known), choice.keep, choice.parameters]
            return [*said, ""]

        def asked(*given: Any) -> Iterator[list[Any]]:
            chosen, text, wanted, picture, length, secret = given[:6]
            server, shown, where = Server(url, secret or None), ["", "", "", "", "", ""], ""
            try:
                choices = (Choice(*given[6:9]), Choice(*given[9:12]))
                where = link(chosen or "", wanted or "", choices)
                if not (wanted or "").strip():
                    raise PlaygroundError("the question is empty; ask something.")
                if not text.strip() and picture is None:
                    raise PlaygroundError("there is nothing to read; paste a document, or give a file or an image.")
                path = None if picture is None else Path(picture)
                for side, choice in enumerate(choices):
                    for answer in server.ask(chosen, text, wanted, choice, path, int(length)):
                        shown[3 * side : 3 * side + 3] = answer.text, _figures(answer), _kept(answer.pieces)
                        yield [*shown, where, ""]
            except (PlaygroundError, ValueError) as error:
                yield [*shown, where, _warned(error)]

        flat = [box for side in sides for box in side]
        gr.on([blocks.load, key.submit], opened, key, [model, question, *flat, trouble], api_visibility="private")
        results = [*outputs[0], *outputs[1], share, trouble]
        inputs = [model, document, question, image, most, key, *flat]
        gr.on([ask.click, question.submit], asked, inputs, results, api_visibility="private")
        file.upload(_read, file, document, api_visibility="private")
    return blocks


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise gr.Error(f"this is no UTF-8 text: {error}") from None


def _warned(error: Exception) -> str:
    return f"**{escape(str(error))}**"


def _figures(answer: Answer) -> str:
    """What it kept and took, as a table; empty until the answer is whole."""
    if not answer.done:
        return ""
    rows, said = [], answer.figures
    if said.get("original_tokens"):
        rows.append(("tokens kept", f"{said['kept_tokens']:,.0f} of {said['original_tokens']:,}"))
    if "visual_kept" in said:
        rows.append(("visual tokens, mean over layers", f"{said['visual_kept']:,.0f}"))
    if said.get("kv_bytes_full"):
        share = said["kv_bytes"] / said["kv_bytes_full"]
        stored, full = size(said["kv_bytes"]), size(said["kv_bytes_full"])
        rows.append(("bytes of keys and values", f"{stored} of {full} ({share:.0%})"))
    if answer.reading:
        rows.append(("reading the document", f"{answer.reading:.2f} s"))
    rows.append(("first text after", f"{answer.first:.2f} s"))
    rows.append(("whole answer after", f"{answer.total:.2f} s"))
    cells = "".join(f"<tr><td>{name}</td><td>{value}</td></tr>" for name, value in rows)
    return f'<table class="figures">{cells}</table>'


def _kept(pieces: list[dict[str, Any]]) -> str:
    """The document with what the first head of the first layer stores; the rest struck out."""
    if not pieces:
        return ""
    room, shown = LONGEST, []
    for piece in pieces:
        tag = "mark" if piece["kept"] else "del"
        shown.append(f"<{tag}>{escape(piece['text'][:room])}</{tag}>")
        room -= len(piece["text"])
        if room <= 0:
            shown.append(" ...")
            break
    return f'<p>Kept by the first head of the first layer:</p><div class="kept">{"".join(shown)}</div>'
