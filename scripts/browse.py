"""One Chromium, cut off from every network but this machine, and pages that tell what they did.

Serves the browser tests, the audit and the PDF.
"""

import contextlib
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from playwright.sync_api import Browser, Error, Page, Playwright, Route

__all__ = ["OFFLINE", "NoChromium", "Visit", "chromium", "launched", "visiting", "wake_explorers"]

NAMES = ["chromium", "chromium-browser", "google-chrome"]
NO_CHROMIUM = """\
This needs Chromium, and none is here. On Debian or Ubuntu:
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
# every address but a file, what a page makes itself, and this machine
ELSEWHERE = re.compile(r"^(?!file:|data:|blob:|https?://127\.0\.0\.1:|ws://127\.0\.0\.1:)")


class NoChromium(RuntimeError):
    """No Chromium is installed; the message says how to get one."""


def chromium(playwright: Playwright) -> str:
    """Where Chromium is: the system's, else Playwright's own.

    Raises ``NoChromium`` when there is none.
    """
    found = next(filter(None, map(shutil.which, NAMES)), None)
    path = found or playwright.chromium.executable_path
    if not Path(path).exists():
        raise NoChromium(NO_CHROMIUM)
    return path


def launched(playwright: Playwright) -> Browser:
    """Chromium, cut off. Raises ``NoChromium`` when there is none."""
    return playwright.chromium.launch(executable_path=chromium(playwright), args=OFFLINE)


@dataclass
class Visit:
    """An open page, the addresses it asked for elsewhere, and what the console complained of."""

    page: Page
    left: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def stop_at_the_border(self, route: Route) -> None:
        self.left.append(route.request.url)
        route.abort()

    def watch(self) -> None:
        self.page.context.route(ELSEWHERE, self.stop_at_the_border)
        self.page.context.route_web_socket(ELSEWHERE, lambda ws: self.left.append(ws.url))
        self.page.on("pageerror", lambda error: self.complaints.append(f"exception: {error}"))
        self.page.on("console", self.listen)

    def listen(self, message) -> None:
        if message.type in {"error", "warning"}:
            where = message.location.get("url", "")
            self.complaints.append(f"{message.type}: {message.text} ({where})")


@contextlib.contextmanager
def visiting(browser: Browser) -> Iterator[Callable[..., Visit]]:
    """A function that opens a page in a fresh profile and returns when its explorers are alive.

    With ``asleep`` they stay as they are until they come near the window. ``options`` are those of
    Playwright's ``new_context``: viewport, color_scheme, and so on. What was opened is closed at
    the end of the block.
    """
    contexts = []

    def opened(
        url: str, *, scripts: bool = True, clock: bool = False, asleep: bool = False, **options
    ) -> Visit:
        context = browser.new_context(java_script_enabled=scripts, **options)
        contexts.append(context)
        context.set_default_timeout(10_000)
        context.set_offline(url.startswith("file:"))
        here = Visit(context.new_page())
        here.watch()
        if clock:
            here.page.clock.install()
        here.page.goto(url)
        if scripts and not asleep:
            _wait_for_explorers(here)
        return here

    yield opened
    for context in contexts:
        context.close()


# asked in each frame: what wakes above pushes down what is below
PASS_BY = """() => {
    globalThis.placeBefore ??= scrollY;
    const figure = document.querySelector("figure[data-explorer]");
    if (figure) figure.scrollIntoView({ behavior: "instant" });
    else scrollTo({ top: globalThis.placeBefore, behavior: "instant" });
    return !figure;
}"""


def wake_explorers(page: Page) -> None:
    """Pass by all explorers, each of which wakes near the window, and come back."""
    page.wait_for_function(PASS_BY)


def _wait_for_explorers(visit: Visit) -> None:
    try:
        wake_explorers(visit.page)
    except Error as error:
        dead = visit.page.locator("figure[data-explorer]").count()
        raise AssertionError(
            f"{visit.page.url}: {dead} explorers do not come alive; {visit.complaints}"
        ) from error
