"""A hook of mkdocs: which files of the repository are pages of the documentation site.

Pages keep the paths that they have in the repository (`docs/guide.md`, `benchmarks/results/speed.md`), and README.md is the
front page. So a link that works when a page is read in the repository works on the site, and mkdocs checks all of them,
those that leave `docs/` included. A page may link to a source file, too: such files are copied as they are.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
PAGES = ("*.md", "docs/**/*.md", "benchmarks/**/*.md", "examples/*.md", "src/laconic/**/*.md", "tools/site.css")
SECTIONS = {"Methods": "docs/systems/*.md", "Measured": "benchmarks/results/*.md", "Models": "src/laconic/**/*.md"}
"""Sections of the navigation that list every page of a folder, so that a new page needs no line in mkdocs.yml."""
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Fill the sections that list a folder. A page's title is its first heading."""
    for section in config.nav or []:
        for name in section.keys() & SECTIONS.keys():
            section[name] += [path.relative_to(ROOT).as_posix() for path in sorted(ROOT.glob(SECTIONS[name]))]
    return config


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """The theme's own files, every page and the style sheet, and what the pages link to inside the repository."""
    pages = {path for pattern in PAGES for path in ROOT.glob(pattern)}
    linked = {
        Path(os.path.normpath(page.parent / target)) for page in pages for target in LINK.findall(page.read_text("utf-8"))
    }
    kept = [file for file in files if not Path(file.abs_src_path or "").is_relative_to(ROOT / "docs")]
    for path in sorted(pages | {path for path in linked if path.is_file() and path.is_relative_to(ROOT)}):
        kept.append(File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path)))
    return Files(kept)
