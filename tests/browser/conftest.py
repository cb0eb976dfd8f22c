"""One Chromium for all browser tests, cut off from every network but this machine."""

import contextlib
import functools
import http.server
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Error, Page, Playwright, Route, sync_playwright

from scripts.chromium import NO_CHROMIUM, OFFLINE, find

SITE = Path(__file__).parents[2] / "_build" / "html"

# every address but a file, what a page makes itself, and this machine
ELSEWHERE = re.compile(r"^(?!file:|data:|blob:|https?://127\.0\.0\.1:|ws://127\.0\.0\.1:)")


@pytest.fixture(scope="session")
def playwright() -> Iterator[Playwright]:
    with sync_playwright() as api:
        yield api


@pytest.fixture(scope="session")
def browser(playwright: Playwright) -> Iterator[Browser]:
    path = find(playwright)
    if path is None:
        pytest.exit(NO_CHROMIUM.format("A test of the built pages"), returncode=1)
    chromium = playwright.chromium.launch(executable_path=path, args=OFFLINE)
    yield chromium
    chromium.close()


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
def _visits(browser: Browser) -> Iterator[Callable[..., Visit]]:
    """A function that opens a page in a fresh profile and returns when its explorers are alive.

    ``options`` are those of Playwright's ``new_context``: viewport, color_scheme, and so on.
    """
    contexts = []

    def opened(url: str, *, scripts: bool = True, clock: bool = False, **options) -> Visit:
        context = browser.new_context(java_script_enabled=scripts, **options)
        contexts.append(context)
        context.set_default_timeout(10_000)
        context.set_offline(url.startswith("file:"))
        here = Visit(context.new_page())
        here.watch()
        if clock:
            here.page.clock.install()
        here.page.goto(url)
        if scripts:
            _wait_for_explorers(here)
        return here

    yield opened
    for context in contexts:
        context.close()


@pytest.fixture(scope="session")
def visits(browser: Browser) -> Callable[[], contextlib.AbstractContextManager]:
    """``with visits() as visit``: what ``visit`` opens is closed at the end of the block."""
    return functools.partial(_visits, browser)


@pytest.fixture
def visit(visits) -> Iterator[Callable[..., Visit]]:
    """``visit(url, **options)``, for one test."""
    with visits() as opened:
        yield opened


def _wait_for_explorers(visit: Visit) -> None:
    try:
        visit.page.wait_for_function("!document.querySelector('figure[data-explorer]')")
    except Error:
        dead = visit.page.locator("figure[data-explorer]").count()
        pytest.fail(f"{visit.page.url}: {dead} explorers do not come alive; {visit.complaints}")


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the built book on a local web server, in a sub-folder as on GitHub Pages."""
    root = tmp_path_factory.mktemp("www")
    (root / "some" / "sub").mkdir(parents=True)
    (root / "some" / "sub" / "folder").symlink_to(SITE, target_is_directory=True)
    handler = functools.partial(QuietHandler, directory=root)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_port}/some/sub/folder"
        httpd.shutdown()
        thread.join()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_arguments) -> None:
        """Say nothing: a page that is missing shows in the test."""
