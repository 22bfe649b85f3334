"""Opens pages in headless Chromium: what a script sees there, and what the window looks like."""

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed (Debian: apt-get install chromium)")
QUIET = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--window-size=1100,1100",
    "--virtual-time-budget=8000",
)


def _run(page: Path, anchor: str, *options: str) -> str:
    assert CHROMIUM is not None
    profile = f"--user-data-dir={page.parent / 'profile'}"
    command = [CHROMIUM, *QUIET, profile, *options, page.as_uri() + anchor]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


def probe(page: Path, script: str) -> list:
    """What the body of an async function adds to `out` when it runs behind the page's own script, and errors of either."""
    copy = page.with_name("probed.html")
    tail = (
        "<pre id=probe></pre><script>(async () => { const out = [], pause = () => new Promise(r => setTimeout(r, 60));\n"
        "const failed = e => out.push('error: ' + (e.reason || e.message)); addEventListener('error', failed);\n"
        "addEventListener('unhandledrejection', failed);\n"
        f"try {{ {script} }} catch (e) {{ out.push('error: ' + e); }}\n"
        "document.getElementById('probe').textContent = JSON.stringify(out); })();</script></body>"
    )
    copy.write_text(page.read_text(encoding="utf-8").replace("</body>", tail), encoding="utf-8")
    for _ in range(3):  # on a busy machine the browser may hand the page over before the script is done
        dom = _run(copy, "", "--dump-dom")
        told = unescape(re.search(r'<pre id="probe">(.*?)</pre>', dom, flags=re.S)[1])
        if told:
            break
    found = json.loads(told)
    assert not any(str(x).startswith("error") for x in found), found
    return found


def screenshot(page: Path, anchor: str = "", *, dark: bool = False) -> np.ndarray:
    """The window as RGB [h, w, 3]."""
    file = page.with_name("window.png")
    _run(page, anchor, f"--screenshot={file}", *(["--blink-settings=preferredColorScheme=0"] if dark else []))
    return np.asarray(Image.open(file).convert("RGB"))
