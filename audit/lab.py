"""Chapters in a real JupyterLab: run, and asked for values that their figures do not offer.

Serves the browser tests and the audit:

    with serving(folder, book) as lab, visiting(browser) as visit:
        print(measure(visit, lab, "lazy"))
"""

import ast
import contextlib
import json
import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import nbformat
from playwright.sync_api import Locator, Page, expect

from scripts.browse import Visit

__all__ = [
    "Answer",
    "Chapter",
    "Drawn",
    "answers",
    "ask",
    "chapters",
    "drawn",
    "live_explorers",
    "measure",
    "new_values",
    "opened",
    "pictures",
    "serving",
]

REPO = Path(__file__).parents[1]
TOKEN = "reader"
MINUTES = 60_000

COMMAND = f"""
    -m jupyterlab --no-browser --allow-root --ip=127.0.0.1 --port=0
    --IdentityProvider.token={TOKEN}
    --LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate
    --LabApp.extension_manager=readonly --ServerApp.terminals_enabled=False
"""
SETTINGS = {
    # ask nobody for news
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    # keep every cell in the page, also those out of sight
    "notebook-extension/tracker": {"windowingMode": "none"},
}

# ---------------------------------------------------------------- the server


def _start(folder: Path, book: Path) -> subprocess.Popen:
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


def _address(server: subprocess.Popen, folder: Path) -> str:
    """Where the server listens: it writes that down itself once it does."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and server.poll() is None:
        for file in (folder / "runtime").glob("jpserver-*.json"):
            try:
                return json.loads(file.read_text(encoding="utf-8"))["url"]
            except json.JSONDecodeError:  # half written
                continue
        time.sleep(0.1)
    log = (folder / "log").read_text(encoding="utf-8")
    raise RuntimeError(f"JupyterLab does not start:\n{log[-3000:]}")


@contextlib.contextmanager
def serving(folder: Path, book: Path) -> Iterator[str]:
    """The address of a JupyterLab that serves a copy of ``book``, its notebooks not yet run.

    ``folder``, empty, takes the copy and all that JupyterLab writes. Raises ``RuntimeError`` when
    it does not start within a minute.
    """
    copy = shutil.copytree(book, folder / "book")
    for path in copy.glob("*.ipynb"):
        notebook = nbformat.read(path, as_version=4)
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = [], None
        nbformat.write(notebook, path)
    with _start(folder, copy) as server:
        try:
            yield _address(server, folder)
        finally:
            server.terminate()  # the server ends its kernels before it goes
            try:
                server.wait(30)
            except subprocess.TimeoutExpired:
                server.kill()


# ---------------------------------------------------------------- a chapter


def chapters() -> list[str]:
    """The names of all notebooks of the book."""
    return sorted(path.stem for path in (REPO / "book").glob("*.ipynb"))


class Drawn(NamedTuple):
    """How many explorers a notebook draws, and in how many of them values may be typed."""

    explorers: int
    live: int


def drawn(name: str) -> Drawn:
    """The explorers of a notebook, by its source."""
    notebook = nbformat.read(REPO / "book" / f"{name}.ipynb", as_version=4)
    calls = [
        call
        for cell in notebook.cells
        if cell.cell_type == "code"
        for node in ast.walk(ast.parse(cell.source))
        for call in getattr(node, "decorator_list", [])
        if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "explore"
    ]
    return Drawn(len(calls), sum(any(k.arg == "live" for k in call.keywords) for call in calls))


# from the click to the moment at which every cell has its number, or one complains
RUN = """
([start, seconds]) => {
  const complaint = document.querySelector('[data-mime-type$=stderr], [data-mime-type$=error]');
  // the cell for Colab is folded, and shows no number
  const done = [...document.querySelectorAll('.jp-Notebook .jp-CodeCell')].every((cell) =>
    /^(\\[\\d+\\]:)?$/.test(cell.querySelector('.jp-InputPrompt').textContent));
  return (complaint || done) && (performance.now() - start) / 1000;
}
"""


@contextlib.contextmanager
def opened(visit: Callable[..., Visit], lab: str, name: str) -> Iterator[tuple[Page, float]]:
    """A chapter after Run > Run All Cells, and the seconds that took; its kernel ends with it.

    ``lab`` is the address of ``serving``. Raises ``AssertionError`` when a cell fails, warns or
    writes to stderr, when an explorer is missing, and, at the end, when the page asked for an
    address elsewhere.
    """
    here = visit(f"{lab}lab/tree/{name}.ipynb?reset&token={TOKEN}")
    page = here.page
    page.set_viewport_size({"width": 1400, "height": 900})
    idle = page.locator("#jp-main-statusbar").get_by_text("Python 3 (ipykernel) | Idle")
    expect(idle).to_be_visible(timeout=2 * MINUTES)
    page.get_by_role("menuitem", name="Run", exact=True).click()
    every = page.get_by_role("menuitem", name="Run All Cells", exact=True)
    expect(every).to_be_visible()
    start = page.evaluate("performance.now()")
    every.click()
    seconds = page.wait_for_function(RUN, arg=[start, 0], timeout=10 * MINUTES).json_value()
    complaints = page.locator("[data-mime-type$=stderr], [data-mime-type$=error]")
    assert complaints.all_inner_texts() == []  # errors and warnings
    expect(idle).to_be_visible()
    expect(page.locator("figure.ntk-explorer:has(.ntk-controls)")).to_have_count(
        drawn(name).explorers
    )
    yield page, seconds
    assert here.left == [], f"{name} asks for addresses elsewhere: {here.left}"
    page.close()
    _end_kernels(here, lab)


def _end_kernels(here: Visit, lab: str) -> None:
    request, headers = here.page.context.request, {"Authorization": f"token {TOKEN}"}
    for session in request.get(f"{lab}api/sessions", headers=headers).json():
        gone = request.delete(
            f"{lab}api/sessions/{session['id']}", headers=headers, timeout=MINUTES
        )
        assert gone.ok, f"a kernel does not end: {gone.status} {gone.text()}"


# ---------------------------------------------------------------- its explorers


def live_explorers(page: Page, name: str) -> list[Locator]:
    """The explorers of a chapter in which any value may be typed, once Python answered all."""
    found = page.locator("figure.ntk-explorer:has(.ntk-live)")
    expect(found).to_have_count(drawn(name).live, timeout=MINUTES)
    return found.all()


# every combination of the sliders and menus, then back to where they stood
PICTURES = """
(figure) => {
  const controls = [...figure.querySelectorAll('[data-control]')];
  const slider = (node) => node.tagName === 'INPUT';
  const at = (node) => slider(node) ? Number(node.value) : node.selectedIndex;
  const sizes = controls.map((node) => slider(node) ? Number(node.max) + 1 : node.options.length);
  const move = (node, i) => {
    if (slider(node)) node.value = i; else node.selectedIndex = i;
    node.dispatchEvent(new Event(slider(node) ? 'input' : 'change', { bubbles: true }));
  };
  const start = controls.map(at);
  const found = [];
  const walk = (i) => {
    if (i === controls.length) {
      found.push(figure.querySelector('.ntk-picture').innerHTML);
      return;
    }
    for (let j = 0; j < sizes[i]; j++) { move(controls[i], j); walk(i + 1); }
  };
  walk(0);
  controls.forEach((node, i) => move(node, start[i]));
  return found;
}
"""


def pictures(explorer: Locator) -> set[str]:
    """All frames of an explorer, by moving its sliders and menus to every combination."""
    return set(explorer.evaluate(PICTURES))


OFFERED = """
(node) => {
  const control = node.closest('figure')
    .querySelector(`[type=range][data-control="${node.dataset.live}"]`);
  const offered = [Number(node.value)];
  if (!control) return offered;
  const start = control.value;
  for (let i = 0; i <= Number(control.max); i++) {
    control.value = i;
    control.dispatchEvent(new Event('input', { bubbles: true }));
    offered.push(Number(control.parentElement.querySelector('output').textContent));
  }
  control.value = start;
  control.dispatchEvent(new Event('input', { bubbles: true }));
  return offered;
}
"""


def new_values(field: Locator, shares: list[float]) -> list[float]:
    """Values that the slider of this field does not offer, at these shares of its range.

    Shares are of the logarithm where the range spans more than a factor of 30.
    """
    low, high = (float(field.get_attribute(end)) for end in ("min", "max"))
    whole = field.get_attribute("step") == "1"
    known, values = set(field.evaluate(OFFERED)), []
    for share in shares:
        least = max(low, 1.0) if whole else low
        if least > 0 and high / least > 30:
            value = math.exp((1 - share) * math.log(least) + share * math.log(high))
        else:
            value = (1 - share) * low + share * high
        value = float(round(value) if whole else f"{value:.4g}")
        step = 1.0 if whole else (high - low) / 97
        while value in known:
            value = value + step if value + step <= high else low
        known.add(value)
        values.append(value)
    return values


# the clock runs from the key in the field to the answer in the page
CLOCK = """
(field) => {
  const figure = field.closest('figure');
  const [picture, message] =
    ['.ntk-picture', '.ntk-message'].map((name) => figure.querySelector(name));
  const before = picture.innerHTML;
  field.answer = null;
  field.addEventListener('keydown', () => {
    const start = performance.now();
    const observer = new MutationObserver(() => {
      if (message.textContent.startsWith('computing')) return;
      observer.disconnect();
      const seconds = (performance.now() - start) / 1000;
      const changed = picture.innerHTML !== before;
      field.answer = { seconds, changed, message: message.textContent };
    });
    for (const node of [picture, message]) observer.observe(node, { childList: true });
  }, { once: true });
}
"""


class Answer(NamedTuple):
    """What came of one value in one field."""

    explorer: str
    field: str
    value: float
    seconds: float  # from Enter to the new picture
    picture: str


def ask(explorer: Locator, field: Locator, value: float) -> Answer:
    """Type a value, press Enter, wait for the picture.

    Raises ``AssertionError`` for a message in place of a picture, or the same picture as before.
    """
    name, what = explorer.get_attribute("data-name"), field.get_attribute("data-live")
    field.fill(f"{value:g}")
    field.evaluate(CLOCK)
    field.press("Enter")
    page = explorer.page
    handle = field.element_handle()
    page.wait_for_function("(field) => field.answer", arg=handle, timeout=2 * MINUTES)
    found = field.evaluate("(field) => field.answer")
    asked = f"{name}, {what} = {value:g}"
    assert found["message"] == "", f"{asked}: {found['message']}"
    assert found["changed"], f"{asked}: the picture stays the same"
    picture = explorer.locator(".ntk-picture").inner_html()
    return Answer(name, what, value, found["seconds"], picture)


def answers(explorer: Locator, *, warm: int = 0) -> Iterator[Answer]:
    """One new value in each field of an explorer, then ``warm`` further ones: the next answers.

    Raises ``AssertionError`` when a picture is one of the frames, and what ``ask`` raises.
    """
    frames = pictures(explorer)
    for field in explorer.locator("input[data-live]").all():
        start = field.input_value()
        shares = [0.62, 0.35, 0.95, 0.5, 0.8][: 1 + warm]
        for value in new_values(field, shares):
            answer = ask(explorer, field, value)
            assert answer.picture not in frames, f"{answer[:3]}: a picture that is offered"
            yield answer
        field.fill(start)


class Chapter(NamedTuple):
    """A chapter in JupyterLab; the worst answer is the slowest once warm."""

    name: str
    run_all: float  # seconds
    explorers: int
    fields: int  # live fields tried
    worst: float  # seconds from Enter to the picture, nan without fields
    where: str  # explorer, field and value of the worst


def measure(visit: Callable[..., Visit], lab: str, name: str, *, warm: int = 2) -> Chapter:
    """Open a chapter, run all, and ask each field for one new value and ``warm`` further ones.

    The first value may compile a program; the worst of the others counts. Raises what ``opened``
    and ``answers`` raise.
    """
    found: dict[tuple[str, str], list[Answer]] = {}
    with opened(visit, lab, name) as (page, seconds):
        for explorer in live_explorers(page, name):
            for answer in answers(explorer, warm=warm):
                found.setdefault(answer[:2], []).append(answer)
    later = [answer for each in found.values() for answer in each[1:]]
    worst = max(later, key=lambda answer: answer.seconds, default=None)
    where = "" if worst is None else f"{worst.explorer}, {worst.field} {worst.value:g}"
    slowest = math.nan if worst is None else worst.seconds
    return Chapter(name, seconds, drawn(name).explorers, len(found), slowest, where)
