"""Chapters in a real JupyterLab: their figures are alive, and Python answers them.

LAB=all takes all chapters, LAB="lazy kernels" those two; without it a few, one for each kind of
work behind the fields. ``make audit`` takes all and measures the time of each answer.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from playwright.sync_api import Locator, Page, expect

from audit import lab as jupyterlab

REPO = Path(__file__).parents[2]
MINUTES = 60_000
FLAGSHIP = "limiting_ntk"
FEW = [FLAGSHIP, "intro", "lazy"]  # networks drawn, networks trained

chosen = os.environ.get("LAB", "").split() or FEW
NAMES = sorted(
    jupyterlab.chapters() if chosen == ["all"] else chosen, key=lambda name: name != FLAGSHIP
)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a JupyterLab that serves a copy of the book."""
    with jupyterlab.serving(tmp_path_factory.mktemp("lab"), REPO / "book") as address:
        yield address


class Notebook(NamedTuple):
    name: str
    page: Page


@pytest.fixture(scope="module", params=NAMES)
def notebook(request: pytest.FixtureRequest, lab: str, visits) -> Iterator[Notebook]:
    """A chapter after Run > Run All Cells; one kernel at a time."""
    with visits() as visit, jupyterlab.opened(visit, lab, request.param) as (page, _):
        yield Notebook(request.param, page)


in_the_flagship = pytest.mark.parametrize("notebook", [FLAGSHIP], indirect=True, scope="module")


@pytest.fixture
def explorer(notebook: Notebook) -> Locator:
    """The first explorer of the flagship chapter in which any value may be typed."""
    return jupyterlab.live_explorers(*notebook[::-1])[0]


def test_every_explorer_draws_values_that_it_does_not_offer(notebook):
    # ``opened`` has seen that all are there; ``answers`` looks at each picture and message
    fields = 0
    for each in jupyterlab.live_explorers(notebook.page, notebook.name):
        found = list(jupyterlab.answers(each))
        assert {a.field for a in found} == set(each.evaluate(LIVE))
        fields += len(found)
    assert fields


LIVE = "(f) => [...f.querySelectorAll('.ntk-live input')].map((field) => field.dataset.live)"


@in_the_flagship
def test_theorems_equations_and_folded_answers_stand_as_on_the_page(notebook):
    text = notebook.page.locator(".jp-Notebook")
    for title in ("Definition 1", "Theorem 1", "Theorem 2", "Proposition 1", "Exercise 1"):
        expect(text.locator("aside").get_by_text(title, exact=True).first).to_be_visible()
    answer = text.locator("details").filter(has_text=re.compile(r"^\s*Answer")).first
    within = answer.locator("p").last
    expect(within).to_be_hidden()
    answer.locator("summary").click()
    expect(within).to_be_visible()
    shown = "\n".join(text.locator(".myst").all_inner_texts())
    assert "Exercise 1" in shown
    raw = r"\{(?:prf:|exercise|solution|dropdown|eq\}|ref\}|term\}|cite)|^[:`]{3,}"
    assert re.findall(raw, shown, re.M) == []


@in_the_flagship
def test_sliders_obey_the_keyboard_and_jupyterlab_does_not(explorer):
    slider = explorer.locator("input[type=range]").first
    slider.fill("0")
    before = explorer.locator(".ntk-picture").inner_html()
    slider.focus()
    explorer.page.keyboard.press("ArrowRight")
    expect(slider).to_have_value("1")
    expect(slider).to_be_focused()
    assert explorer.locator(".ntk-picture").inner_html() != before


@in_the_flagship
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


@in_the_flagship
def test_an_explorer_says_its_line_of_python_and_leaves_the_address_alone(explorer):
    before = explorer.page.url
    expect(explorer.get_by_role("button", name="Copy link")).to_have_count(0)
    explorer.get_by_role("button", name="Python").click()
    line = explorer.locator(".ntk-python code")
    slider = explorer.locator("input[type=range]").first
    slider.fill("1")
    value, name = slider.get_attribute("aria-valuetext"), slider.get_attribute("data-control")
    expect(line).to_have_text(re.compile(rf"^\w+\(.*\b{name}={value}\b.*\)$"))
    explorer.get_by_role("button", name="Python").click()
    assert explorer.page.url == before
