"""Where Chromium is, for the tests of the built pages and for the PDF."""

import os
import shutil
import sys
from pathlib import Path

from playwright.sync_api import Playwright

__all__ = ["NO_CHROMIUM", "OFFLINE", "find"]

NAMES = ["chromium", "chromium-browser", "google-chrome"]
NO_CHROMIUM = """\
{} needs Chromium, and none is here. On Debian or Ubuntu:
    apt-get install chromium
elsewhere:
    python -m playwright install chromium"""
OFFLINE = [
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    # no name resolves but this machine's own
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]
if sys.platform == "linux" and os.geteuid() == 0:
    OFFLINE.append("--no-sandbox")  # Chromium refuses to run as root with its sandbox


def find(playwright: Playwright) -> str | None:
    """The system's Chromium, else Playwright's own, else None."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    path = found or playwright.chromium.executable_path
    return path if Path(path).exists() else None
