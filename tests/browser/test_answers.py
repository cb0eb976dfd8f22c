"""Predictions that answer back and references that show what they lead to, in a book of two pages.

The chapters change; what is asked of a reader here does not. It is built as the book is, with the
book's sheets and scripts, and opened from a file.
"""

import re
import sys
from pathlib import Path

import pytest
import yaml
from playwright.sync_api import Page, expect
from sphinx.application import Sphinx
from sphinx.util.docutils import docutils_namespace, patch_docutils

from audit.axe import all_findings, settle

REPO = Path(__file__).parents[2]
sys.path.insert(0, str(REPO / "book" / "extension"))

LONG = "\n\n".join(["A paragraph that takes room on the page. " * 12] * 12)
CHAPTER = f"""# A chapter

The **{{term}}`tangent kernel`**, {{prf:ref}}`thm-one`, {{eq}}`eq-one` and [a section](sec-two).

**Predict, then move.** By which factor does $k$ fall?

- (a) about 2,
- (b) about 4, or
- (c) about 16?

{LONG}

````{{dropdown}} Answer
(b). It is 4.

- (a) would hold for $x$.
- (c) would need more.
````

**Predict.** And then?

- (a) less, or
- (b) more?

````{{dropdown}} Answer
(a), less.

- (b) would be more.
````

(sec-two)=
## A section

{LONG}

$$
k = \\frac12
$$ (eq-one)

```{{prf:theorem}} Of one
:label: thm-one

It is $k$, says {{eq}}`eq-one`.
```

## The rest of $k$

It is an eigenvalue. {LONG}
"""
WORDS = """# Glossary

```{glossary}
tangent kernel
  What {eq}`eq-one` says, a $k$.
```
"""
FRONT = "# The book\n\nA book.\n\n```{toctree}\nchapter\nwords\n```\n"


@pytest.fixture(scope="module")
def book(tmp_path_factory) -> str:
    """The address of the small book."""
    settings = yaml.safe_load((REPO / "_config.yml").read_text(encoding="utf-8"))
    ours = settings["sphinx"]["config"]
    source = tmp_path_factory.mktemp("a book") / "source"
    source.mkdir()
    for name, text in {"index": FRONT, "chapter": CHAPTER, "words": WORDS}.items():
        (source / f"{name}.md").write_text(text, encoding="utf-8")
    static = [str((REPO / "book" / name).resolve()) for name in ours["html_static_path"]]
    config = {
        "project": "Small",
        "extensions": [
            *("myst_nb", "sphinx_design", "sphinx_togglebutton", "sphinx_proof"),
            *("sphinxcontrib.katex", "static_page", "light_page", "answers", "previews"),
        ],
        "myst_enable_extensions": settings["parse"]["myst_enable_extensions"],
        "root_doc": "index",
        "html_theme": "sphinx_book_theme",
        "html_static_path": static,
        "html_context": {"default_mode": "auto"},
        "html_theme_options": {"navbar_persistent": []},
        "numfig": True,
        **{
            name: value
            for name, value in ours.items()
            if name.startswith("katex") or name in {"html_css_files", "html_js_files"}
        },
        "html_math_renderer": "katex",
    }
    out = source.parent / "html"
    with patch_docutils(), docutils_namespace():
        app = Sphinx(
            *(source, None, out, source.parent / "trees", "html", config),
            status=None,
            warningiserror=True,
        )
        app.build()
    return out.as_uri()


def kept(page: Page) -> dict:
    return page.evaluate("JSON.parse(localStorage.getItem('ntk-book'))")


def test_a_prediction_answers_back_by_keyboard_and_is_kept(book, visit):
    here = visit(f"{book}/chapter.html", viewport={"width": 1280, "height": 800})
    page, keyboard = here.page, here.page.keyboard
    group = page.get_by_role("group", name=re.compile("By which factor does"))
    fold = page.locator("details.prediction-answer").first
    group.get_by_role("radio", name="(a) about 2").focus()
    keyboard.press("Space")
    keyboard.press("ArrowDown")
    keyboard.press("ArrowDown")
    expect(group.get_by_role("radio", name="(c) about 16")).to_be_checked()
    expect(group.get_by_role("status")).to_contain_text("Your prediction: (c)")
    expect(fold).not_to_have_attribute("open", "")  # nor on the way through the choices
    expect(group.locator(".choice-mark")).to_have_count(0)

    keyboard.press("Tab")
    keyboard.press("Enter")
    expect(fold.locator("summary")).to_be_focused()
    expect(fold.locator("summary")).to_be_in_viewport()
    verdict = fold.locator(".verdict")
    expect(verdict).to_have_text(re.compile(r"✗ Not this.*\(c\).*\(c\) would need more", re.S))
    expect(fold.locator("li:visible")).to_have_text("(a) would hold for xxx.")
    expect(group.locator("label", has_text="(b)")).to_contain_text("✓ right")
    expect(group.locator("label", has_text="(c)")).to_contain_text("✗ not this")
    group.get_by_role("radio", name="(b)").check()
    expect(verdict).to_have_text(re.compile(r"✓ Right.*\(b\)"))
    expect(fold.locator("li:visible")).to_have_count(2)
    page.get_by_role("radio", name="(b) more?").check()

    page.reload()
    expect(group.get_by_role("radio", name="(b)")).to_be_checked()
    expect(group.locator(".choice-mark")).to_have_text(" ✓ right")
    expect(page.get_by_role("radio", name="(b) more?")).to_be_checked()
    expect(page.locator(".choice-mark")).to_have_count(1)  # the second answer was not opened

    page.get_by_role("button", name="Forget them").click()
    expect(page.locator("input:checked")).to_have_count(0)
    expect(page.locator(".choice-mark")).to_have_count(0)
    assert kept(page) == {"choices": {}, "places": {}}
    assert (here.left, here.complaints) == ([], [])


def test_where_a_chapter_was_left_is_offered_there_and_on_the_front_page(book, visit):
    here = visit(f"{book}/chapter.html", viewport={"width": 1280, "height": 800})
    page = here.page
    offer = page.get_by_role("complementary", name="Where you were")
    page.locator("#the-rest-of-k").evaluate("(node) => node.scrollIntoView()")
    page.wait_for_function("localStorage.getItem('ntk-book')?.includes('rest')")
    assert kept(page)["places"] == {"chapter.html": ["the-rest-of-k", "A chapter", "The rest of k"]}
    page.goto(f"{book}/index.html")
    expect(offer).to_contain_text("Continue “A chapter” at The rest of k")
    offer.get_by_role("link", name="The rest of k").click()
    expect(page).to_have_url(f"{book}/chapter.html#the-rest-of-k")
    expect(page.locator("#the-rest-of-k")).to_be_in_viewport()
    expect(offer).to_have_count(0)
    page.goto(f"{book}/words.html")
    page.goto(f"{book}/chapter.html")
    offer.get_by_role("button", name="Close").click()
    page.goto(f"{book}/words.html")
    page.goto(f"{book}/chapter.html")
    page.wait_for_load_state()
    expect(offer).to_have_count(0)
    assert here.complaints == []


def test_a_reference_shows_what_it_leads_to_by_mouse_and_by_keyboard(book, visit):
    here = visit(f"{book}/chapter.html", viewport={"width": 1280, "height": 800})
    page, box = here.page, here.page.get_by_role("dialog", name="Preview")
    first = page.locator("article p").first
    before = first.bounding_box()
    first.get_by_role("link", name="tangent kernel").hover()
    expect(box).to_contain_text("What (1) says")
    assert first.bounding_box() == before
    box.hover()
    page.wait_for_timeout(500)  # it stays for who goes there
    expect(box).to_be_visible()
    page.keyboard.press("Escape")
    expect(box).to_be_hidden()
    first.get_by_role("link", name=re.compile("Theorem")).hover()
    expect(box).to_contain_text("It is")
    page.mouse.move(5, 500)
    expect(box).to_be_hidden()

    equation = first.get_by_role("link", name="(1)")
    page.keyboard.press("Shift")  # from now on by keyboard
    equation.focus()
    expect(box.locator(".katex-html")).to_be_visible()
    expect(equation).to_have_attribute("aria-describedby", "preview")
    page.keyboard.press("Tab")
    expect(box).to_be_hidden()
    expect(equation).not_to_have_attribute("aria-describedby", "preview")
    section = first.get_by_role("link", name="a section")
    expect(section).to_be_focused()
    section.hover()
    page.wait_for_timeout(500)
    expect(box).to_be_hidden()
    assert (here.left, here.complaints) == ([], [])


ON_A_PHONE = {
    "viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True
}  # fmt: skip


def test_on_a_phone_the_first_tap_shows_and_a_link_in_it_goes_there(book, visit):
    here = visit(f"{book}/chapter.html", **ON_A_PHONE)
    page, box = here.page, here.page.get_by_role("dialog", name="Preview")
    page.get_by_role("link", name="tangent kernel").tap()
    expect(box).to_be_in_viewport(ratio=1)
    expect(page).to_have_url(f"{book}/chapter.html")
    page.locator("article h1").tap()
    expect(box).to_be_hidden()
    page.get_by_role("link", name="a section").tap()  # which shows nothing
    expect(page).to_have_url(f"{book}/chapter.html#sec-two")
    page.get_by_role("link", name="tangent kernel").tap()
    box.get_by_role("link", name="Go there").tap()
    expect(page).to_have_url(f"{book}/words.html#term-tangent-kernel")
    assert (here.left, here.complaints) == ([], [])


@pytest.mark.parametrize("options", [{}, ON_A_PHONE], ids=["desk", "phone"])
def test_axe_finds_nothing_in_answers_and_previews(book, visit, options):
    page = visit(f"{book}/chapter.html", clock=True, **options).page
    page.get_by_role("radio", name="(c) about 16").check()
    page.get_by_role("button", name="open the answer").first.click()
    page.evaluate("document.querySelectorAll('details').forEach((node) => (node.open = true))")
    settle(page)  # the answer no longer holds its place
    link = page.get_by_role("link", name="tangent kernel")
    link.tap() if options else link.hover()
    settle(page)
    expect(page.get_by_role("dialog", name="Preview")).to_be_visible()
    assert all_findings(page) == []


def test_without_scripts_list_and_fold_stand_in_the_readers_theme(book, visit):
    page = visit(f"{book}/chapter.html", scripts=False, color_scheme="dark").page
    expect(page.locator("ul.choices > li").first).to_have_text("(a) about 2,")
    expect(page.locator("details.prediction-answer summary").first).to_be_visible()
    live = visit(f"{book}/chapter.html").page  # and nothing moves when scripts come
    expect(live.locator("fieldset")).to_have_count(2)
    tops = [here.locator("#a-section").bounding_box()["y"] for here in (page, live)]
    assert tops[0] == tops[1]
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert max(map(int, re.findall(r"\d+", ground)[:3])) < 60


COPIED = """(selector) => {
  const data = new DataTransfer();
  const event = new ClipboardEvent('copy', { clipboardData: data, cancelable: true });
  getSelection().selectAllChildren(document.querySelector(selector));
  dispatchEvent(event);
  return event.defaultPrevented ? data.getData('text/plain') : 'as the browser does';
}"""


def test_a_copied_formula_is_copied_once(book, visit):
    page = visit(f"{book}/chapter.html").page
    assert page.evaluate(COPIED, "p.prediction") == (
        "Predict, then move. By which factor does $k$ fall?"
    )
    assert page.evaluate(COPIED, "article h1") == "as the browser does"
