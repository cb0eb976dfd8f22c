"""The flagship chapter in a real JupyterLab: its figures are alive, and Python answers them."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from playwright.sync_api import Locator, Page, expect

REPO = Path(__file__).parents[2]
CHAPTER = "limiting_ntk.ipynb"
MINUTES = 60_000

COMMAND = """
    -m jupyterlab --no-browser --allow-root --ip=127.0.0.1 --port=0 --IdentityProvider.token=reader
    --LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate
    --LabApp.extension_manager=readonly --ServerApp.terminals_enabled=False
"""
SETTINGS = {
    # ask nobody for news
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    # keep every cell in the page, also those out of sight
    "notebook-extension/tracker": {"windowingMode": "none"},
}


def start(folder: Path, book: Path) -> subprocess.Popen:
    """JupyterLab as a new reader has it: no settings, no data, this environment's kernel alone."""
    for name, settings in SETTINGS.items():
        file = folder / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(settings), encoding="utf-8")
    places = {
        "JUPYTER_CONFIG_DIR": "config",
        "JUPYTER_DATA_DIR": "data",
        "JUPYTER_RUNTIME_DIR": "runtime",
        "JUPYTERLAB_SETTINGS_DIR": "settings",
        "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
        "IPYTHONDIR": "ipython",
    }
    environment = os.environ | {name: str(folder / place) for name, place in places.items()}
    environment |= {"JUPYTER_PREFER_ENV_PATH": "1", "JAX_PLATFORMS": "cpu"}
    environment.setdefault("JAX_COMPILATION_CACHE_DIR", str(REPO / "_build" / "cache" / "jax"))
    environment.pop("MPLBACKEND", None)  # a reader's kernel draws inline
    with (folder / "log").open("w") as log:
        return subprocess.Popen(
            [sys.executable, *COMMAND.split()], cwd=book, env=environment, stdout=log, stderr=log
        )


def address(server: subprocess.Popen, folder: Path) -> str:
    """Where the server listens: it writes that down itself once it does."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and server.poll() is None:
        for file in (folder / "runtime").glob("jpserver-*.json"):
            try:
                return json.loads(file.read_text(encoding="utf-8"))["url"]
            except json.JSONDecodeError:  # half written
                continue
        time.sleep(0.1)
    pytest.fail(f"JupyterLab does not start:\n{(folder / 'log').read_text()[-3000:]}")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a JupyterLab that serves a copy of the book, its flagship not yet run."""
    folder = tmp_path_factory.mktemp("lab")
    book = shutil.copytree(REPO / "book", folder / "book")
    notebook = nbformat.read(book / CHAPTER, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    nbformat.write(notebook, book / CHAPTER)
    with start(folder, book) as server:
        try:
            yield address(server, folder)
        finally:
            server.terminate()  # the server ends its kernels before it goes
            try:
                server.wait(30)
            except subprocess.TimeoutExpired:
                server.kill()


@pytest.fixture(scope="module")
def notebook(lab: str, visits) -> Iterator[Page]:
    """The flagship chapter after Run > Run All Cells."""
    with visits() as visit:
        here = visit(f"{lab}lab/tree/{CHAPTER}?reset&token=reader")
        page = here.page
        page.set_viewport_size({"width": 1400, "height": 900})
        idle = page.locator("#jp-main-statusbar").get_by_text("Python 3 (ipykernel) | Idle")
        expect(idle).to_be_visible(timeout=2 * MINUTES)
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        page.wait_for_function(
            """() => document.querySelector('[data-mime-type$=stderr]')
              || [...document.querySelectorAll('.jp-Notebook .jp-CodeCell')].every((cell) =>
                /^\\[\\d+\\]:$/.test(cell.querySelector('.jp-InputPrompt').textContent))""",
            timeout=10 * MINUTES,
        )
        assert page.locator("[data-mime-type$=stderr]").all_inner_texts() == []  # errors, warnings
        expect(idle).to_be_visible()
        yield page
        assert here.left == []


@pytest.fixture
def explorer(notebook: Page) -> Locator:
    """The first explorer in which any value may be typed: it is there once Python answered."""
    first = notebook.locator("figure.ntk-explorer:has(.ntk-live)").first
    expect(first).to_be_visible(timeout=MINUTES)
    return first


def test_every_explorer_is_alive(notebook):
    source = (REPO / "book" / CHAPTER).read_text(encoding="utf-8")
    drawn = len(re.findall(r'"@explore\(', source))
    expect(notebook.locator("figure.ntk-explorer:has(.ntk-controls)")).to_have_count(drawn)


def test_sliders_obey_the_keyboard_and_jupyterlab_does_not(explorer):
    slider = explorer.locator("input[type=range]").first
    slider.fill("0")
    before = explorer.locator(".ntk-picture").inner_html()
    slider.focus()
    explorer.page.keyboard.press("ArrowRight")
    expect(slider).to_have_value("1")
    expect(slider).to_be_focused()
    assert explorer.locator(".ntk-picture").inner_html() != before


def offered(explorer: Locator, field: Locator) -> tuple[set[float], set[str]]:
    """The values that the slider of this field offers, and their pictures."""
    slider = explorer.locator(f"input[type=range][data-control={field.get_attribute('data-live')}]")
    values, pictures = set(), {explorer.locator(".ntk-picture").inner_html()}
    for position in range(int(slider.get_attribute("max")) + 1 if slider.count() else 0):
        slider.fill(str(position))
        values.add(float(slider.locator("xpath=..").locator("output").inner_text()))
        pictures.add(explorer.locator(".ntk-picture").inner_html())
    return values, pictures


def test_python_draws_a_value_that_the_slider_does_not_offer(explorer):
    field = explorer.locator("input[data-live]").first
    values, pictures = offered(explorer, field)
    low, high = float(field.get_attribute("min")), float(field.get_attribute("max"))
    step = 1 if field.get_attribute("step") == "1" else (high - low) / 7
    value = low + step
    while value in values or value == float(field.input_value()):
        value += step
    drawn = explorer.locator(".ntk-picture")
    before = drawn.inner_html()
    field.fill(f"{value:g}")
    field.press("Enter")
    explorer.page.wait_for_function(
        "([node, before]) => node.innerHTML !== before",
        arg=[drawn.element_handle(), before],
        timeout=2 * MINUTES,
    )
    assert drawn.inner_html() not in pictures
    expect(explorer.locator(".ntk-message")).to_have_text("")


def test_a_value_out_of_range_is_answered_in_words(explorer):
    field = explorer.locator("input[data-live]").first
    name, highest = field.get_attribute("data-live"), float(field.get_attribute("max"))
    drawn = explorer.locator(".ntk-picture")
    before = drawn.inner_html()
    field.evaluate("(node) => { node.removeAttribute('max'); node.removeAttribute('min'); }")
    field.fill(f"{highest + 1:g}")
    explorer.get_by_role("button", name="Draw").click()
    message = explorer.locator(".ntk-message")
    expect(message).to_have_text(re.compile(f"{name} needs to be between"), timeout=2 * MINUTES)
    assert drawn.inner_html() == before
