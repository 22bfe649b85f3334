"""`laconic playground`: a page beside a server, to try methods on one's own document."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from laconic.cli import common


def playground(
    url: Annotated[str, typer.Option("--url", help="Of a running `laconic serve`.")] = "http://127.0.0.1:8000/v1",
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Port to listen on.")] = 7860,
    document: Annotated[Path | None, typer.Option("--document", help="A text file that the page opens with.")] = None,
) -> None:
    """Ask one question of a document or an image in two ways, and see what was kept, what it took, and both answers.

    Example: laconic serve --model smollm2 (in another terminal), then laconic playground
    """
    try:
        from laconic.playground.page import CSS, page
    except ImportError as error:
        raise common.InputError(
            f"{error.name} is not installed; make an environment of its own and pip install 'laconic-transformers[ui]'."
        ) from None
    if not url.startswith(("http://", "https://")):
        raise common.InputError(f"--url {url}: give the address of a server, such as http://127.0.0.1:8000/v1.")
    if document is not None and not document.is_file():
        raise common.InputError(f"--document {document}: there is no such file.")
    common.err().print(f"playground of {url} at http://{host}:{port}", markup=False)
    page(url, document).launch(
        server_name=host, server_port=port, share=False, quiet=True, css=CSS, max_file_size="10mb", footer_links=[]
    )
