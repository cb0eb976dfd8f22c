"""One Chromium for all browser tests, cut off from every network but this machine."""

import contextlib
import functools
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Playwright, sync_playwright
from xdist.scheduler import LoadScopeScheduling

from audit.lighthouse import served
from scripts.browse import NoChromium, Visit, launched, visiting

SITE = Path(__file__).parents[2] / "_build" / "html"


class ByPage(LoadScopeScheduling):
    """One worker takes all tests of a page, of JupyterLab, of the PDF: they share what is open."""

    def _split_scope(self, nodeid: str) -> str:
        page = re.search(r"[\w-]+\.html(?=\]|-)", nodeid)
        return page[0] if page else nodeid.partition("::")[0]


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> ByPage:
    return ByPage(config, log)


@pytest.fixture(scope="session")
def playwright() -> Iterator[Playwright]:
    with sync_playwright() as api:
        yield api


@pytest.fixture(scope="session")
def browser(playwright: Playwright) -> Iterator[Browser]:
    try:
        chromium = launched(playwright)
    except NoChromium as error:
        pytest.exit(str(error), returncode=1)
    yield chromium
    chromium.close()


@pytest.fixture(scope="session")
def visits(browser: Browser) -> Callable[[], contextlib.AbstractContextManager]:
    """``with visits() as visit``: what ``visit`` opens is closed at the end of the block."""
    return functools.partial(visiting, browser)


@pytest.fixture
def visit(visits) -> Iterator[Callable[..., Visit]]:
    """``visit(url, **options)``, for one test."""
    with visits() as opened:
        yield opened


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the built book on a local web server, in a sub-folder as on GitHub Pages."""
    root = tmp_path_factory.mktemp("www")
    (root / "some" / "sub").mkdir(parents=True)
    (root / "some" / "sub" / "folder").symlink_to(SITE, target_is_directory=True)
    with served(root) as address:
        yield f"{address}/some/sub/folder"
