"""The built book as a reader meets it: offline, by keyboard, on a phone, in the dark."""

import base64
import functools
import gzip
import html
import importlib.metadata
import io
import json
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import matplotlib as mpl
import nbformat
import pytest
import yaml
from fontTools.ttLib import TTFont
from playwright.sync_api import Locator, Page, expect

from audit.axe import SCROLLERS, all_findings, findings, settle, unfold
from scripts.browse import wake_explorers

REPO = Path(__file__).parents[2]
SITE = REPO / "_build" / "html"
if not (SITE / "index.html").exists():
    pytest.fail(f"There is no built book in {SITE}: run `make book` first.", pytrace=False)

LIVE = "figure.ntk-explorer:not([data-explorer]):has(.ntk-controls)"


class Source(HTMLParser):
    """What a page's file says before any script runs: its tags with their attributes."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text = path.read_text(encoding="utf-8")
        self.feed(self.text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    @property
    def redirects(self) -> bool:
        return any(
            t == "meta" and a.get("http-equiv", "").lower() == "refresh" for t, a in self.tags
        )

    @property
    def frames(self) -> list[str]:
        """The files with the frames of its explorers."""
        return [a["data-explorer"] for t, a in self.tags if t == "figure" and "data-explorer" in a]

    @property
    def explorers(self) -> int:
        return len(self.frames)

    @property
    def anchors(self) -> set[str]:
        return {a[name] for _, a in self.tags for name in ("id", "name") if name in a}


@functools.cache
def source(page: str) -> Source:
    return Source(SITE / page)


FILES = sorted(
    path.relative_to(SITE).as_posix()
    for path in SITE.rglob("*.html")
    if path.relative_to(SITE).parts[0] not in {"_static", "_sources"}
)
LOST = "404.html"  # no page of the book: a server shows it where there is none
PAGES = [page for page in FILES if page != LOST and not source(page).redirects]
EXPLORED = [page for page in PAGES if source(page).explorers]

CHAPTERS = [page for page in PAGES if (REPO / "book" / page).with_suffix(".ipynb").exists()]

every_page = pytest.mark.parametrize("page", PAGES, scope="module")
every_page_with_explorers = pytest.mark.parametrize("page", EXPLORED, scope="module")
light_and_dark = pytest.mark.parametrize("scheme", ["light", "dark"])


def address(page: str) -> str:
    return (SITE / page).as_uri()


# ---------------------------------------------------------------- the files


def test_the_book_has_pages_with_explorers():
    assert EXPLORED


REMOTE = re.compile(r"(^|[\s,])\s*(https?:)?//", re.IGNORECASE)
REMOTE_CSS = re.compile(r"(?:url\(|@import)\s*['\"]?\s*(?:https?:)?//[^'\")\s]*", re.IGNORECASE)


@pytest.mark.parametrize("page", FILES)
def test_no_tag_loads_from_another_site(page):
    loads = [
        f"<{tag} {name}={attributes[name]!r}>"
        for tag, attributes in source(page).tags
        for name in ("src", "srcset", "href", "xlink:href", "data", "poster")
        if tag != "a" and REMOTE.search(attributes.get(name, ""))
    ]
    assert loads + REMOTE_CSS.findall(source(page).text) == []


def test_no_style_sheet_loads_from_another_site():
    found = {
        path.relative_to(SITE).as_posix(): loads
        for path in SITE.rglob("*.css")
        if (loads := REMOTE_CSS.findall(path.read_text(encoding="utf-8")))
    }
    assert found == {}


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_code_without_marks_has_the_colour_of_text(theme):
    """Names, punctuation and spaces have lost their marks: PLAIN in light_page.py."""
    sheet = (SITE / "_static" / "pygments.css").read_text(encoding="utf-8")
    highlight = rf'^html\[data-theme="{theme}"\] \.highlight '
    (text,) = re.findall(highlight + r"\{.* color: (#\w+)", sheet, re.M)
    marked = dict(re.findall(highlight + r"\.([npw]) \{ color: (#\w+)", sheet, re.M))
    assert marked == dict.fromkeys("npw", text)


@pytest.mark.parametrize("page", FILES)
def test_internal_links_and_anchors_resolve(page):
    broken = []
    for tag, attributes in source(page).tags:
        link = attributes.get("href")
        if tag != "a" or not link or link == "#" or urlsplit(link).scheme:
            continue
        parts = urlsplit(link)
        target = (SITE / page).parent / unquote(parts.path) if parts.path else SITE / page
        target = target.resolve()
        if not target.is_file():
            broken.append(f"{link}: no such file")
        elif parts.fragment and target.suffix == ".html":
            known = source(target.relative_to(SITE.resolve()).as_posix()).anchors
            # a frame of a figure: the figure's name, and after ? its controls (views.py)
            if unquote(parts.fragment).partition("?")[0] not in known:
                broken.append(f"{link}: no such anchor")
    assert broken == []


@every_page
def test_every_reference_to_a_formula_theorem_term_or_source_has_its_preview(page):
    file = (SITE / "_static" / "previews" / page).with_suffix(".js")
    call = file.read_text(encoding="utf-8") if file.exists() else "ntkPreviews({});"
    shown = json.loads(call.strip().removeprefix("ntkPreviews(").removesuffix(");"))
    article = re.search(r"<article.*</article>", source(page).text, re.S)
    kinds = (
        r'<a class="reference internal" href="([\w.]*#(?:equation-|term-|thm-|def-|ex-|id\d)[^"]*)"'
    )
    links = set(re.findall(kinds, article[0])) if article else set()
    assert links <= set(shown)
    assert all(re.search(r"\w", re.sub(r"<[^>]*>", "", text)) for text in shown.values())


@pytest.mark.parametrize("page", FILES)
def test_an_id_names_one_element(page):
    ids = Counter(attributes["id"] for _, attributes in source(page).tags if "id" in attributes)
    assert [name for name, times in ids.items() if times > 1] == []


def test_code_of_the_explorers_is_at_most_31_kilobytes():
    code = ["ntk_lib/page/explore.js", "ntk_lib/page/explore.css"]
    files = [*code, "book/assets/page.js", "book/assets/views.js"]
    assert sum((REPO / name).stat().st_size for name in files) <= 31_000


def test_code_of_answers_previews_and_search_is_at_most_14_kilobytes():
    names = ("answers", "previews", "search")
    files = [REPO / "book" / "assets" / f"{name}.js" for name in names]
    assert sum(file.stat().st_size for file in files) <= 14_336


@every_page_with_explorers
def test_frames_of_a_page_are_at_most_300_kilobytes_compressed(page):
    files = source(page).frames
    assert len(set(files)) == source(page).explorers
    assert sum(len(gzip.compress((SITE / name).read_bytes())) for name in files) <= 300_000


@every_page
def test_a_page_is_light(page):
    tags = source(page).tags
    waits = [a for t, a in tags if t == "script" and "src" in a and "defer" not in a]
    sheets = [a for t, a in tags if t == "link" and a.get("rel") == "stylesheet"]
    assert waits == []
    assert [a["href"] for a in sheets if "media" not in a] == ["_static/book-bundle.css"]
    assert len(gzip.compress(source(page).text.encode())) <= 200_000
    assert len(gzip.compress((SITE / "_static" / "book-bundle.css").read_bytes())) <= 31_000


@every_page
def test_a_page_describes_itself_in_a_line(page):
    said = [a["content"] for t, a in source(page).tags if a.get("name") == "description"]
    assert len(said) == 1
    assert 30 <= len(said[0]) <= 162


@every_page
def test_a_link_preview_has_a_title_and_the_same_line(page):
    said = {
        a.get("property", a.get("name")): a["content"]
        for t, a in source(page).tags
        if t == "meta" and "content" in a
    }
    assert said["og:title"]
    assert said["og:description"] == said["description"]


def test_no_two_pages_describe_themselves_alike():
    said = [
        a["content"] for p in PAGES for _, a in source(p).tags if a.get("name") == "description"
    ]
    assert len(set(said)) == len(PAGES)


@pytest.mark.parametrize(
    "page", [p for p in PAGES if (REPO / "book" / p).with_suffix(".ipynb").exists()]
)
def test_a_chapter_can_be_run_and_taken_away(page):
    links = {a["href"] for t, a in source(page).tags if t == "a" and "href" in a}
    name = page.removesuffix(".html")
    assert f"_sources/{name}.ipynb" in links
    assert any(x.endswith(f"?urlpath=lab/tree/book/{name}.ipynb") for x in links)
    assert re.search(
        r"<p class=\"doors.*?Running all of it takes (less|about)", source(page).text, re.S
    )
    taken = nbformat.read(SITE / "_sources" / f"{name}.ipynb", as_version=4)
    assert taken.cells[0].id == "install"


def test_the_status_page_counts_every_chapter():
    text = re.sub(r"<[^>]*>", " ", source("status.html").text)
    chapters = list((REPO / "book").glob("*.ipynb"))
    assert len(re.findall(r'<a class="reference internal" href="\w+\.html">', text)) == 0
    rows = source("status.html").text.split("<tbody>")[1].split("</tbody>")[0].count("<tr")
    assert rows == len(chapters) + 1  # and their sum
    for package in ("jax", "numpy", "matplotlib", "jupyterlab"):
        version = importlib.metadata.version(package)
        assert re.search(rf"\b{package}\s+{re.escape(version)}\s", text), package


# ---------------------------------------------------------------- opening a page


@pytest.fixture(scope="module")
def desk(page, visits):
    """The page on a desk, opened with a double click; its tests share it."""
    with visits() as visit:
        here = visit(address(page), clock=True)
        settle(here.page)
        yield here


@pytest.fixture(scope="module")
def phone(page, visits):
    """The page on a phone, with everything open that can be; its tests only look."""
    with visits() as visit:
        here = visit(
            address(page),
            clock=True,
            viewport={"width": 390, "height": 844},
            is_mobile=True,
            has_touch=True,
        )
        unfold(here.page)
        yield here.page


@every_page
def test_opens_from_a_file_with_the_network_cut(desk):
    assert (desk.left, desk.complaints) == ([], [])


@every_page
def test_opens_from_a_sub_folder_of_a_server(page, visit, server):
    here = visit(f"{server}/{page}", clock=True)
    settle(here.page)
    assert (here.left, here.complaints) == ([], [])


def test_the_front_door_has_a_name_and_a_link():
    front = source("index.html")
    assert ("html", {"lang": "en"}) in front.tags
    assert ("a", {"href": "intro.html"}) in front.tags
    assert "<title>The Neural Tangent Kernel, Interactively</title>" in front.text


def test_the_front_door_leads_into_the_book(visit):
    here = visit(address("index.html"))
    expect(here.page.locator("article h1")).to_be_visible()
    assert (here.left, here.complaints) == ([], [])


@light_and_dark
def test_a_reader_who_is_lost_finds_the_book(scheme, visit):
    here = visit(address(LOST), clock=True, color_scheme=scheme)
    links = {a["href"] for t, a in source(LOST).tags if t == "a"}
    assert set(PAGES) <= links  # that they lead somewhere, the test of internal links sees
    assert findings(here.page) == []
    here.page.get_by_role("link", name="The Neural Tangent Kernel, Interactively").first.click()
    expect(here.page.locator("article h1")).to_be_visible()
    assert (here.left, here.complaints) == ([], [])


def test_the_bibliography_says_how_to_cite_the_book_and_every_page_leads_there():
    page = source("bibliography.html")
    entry = html.unescape(re.sub(r"<[^>]*>", "", re.search(r"<pre.*?</pre>", page.text, re.S)[0]))
    citation = yaml.safe_load((REPO / "CITATION.cff").read_text(encoding="utf-8"))
    for value in (citation["title"], f"Version {citation['version']}", "https://"):
        assert value in entry
    way = ("a", {"href": "bibliography.html#how-to-cite-this-book"})
    assert [name for name in PAGES if way not in source(name).tags] == []


def test_search_finds_pages_from_a_file(visit):
    here = visit(address("search.html") + "?q=kernel")
    expect(here.page.locator("#search-results li").first).to_be_visible()
    here.page.wait_for_timeout(500)  # a request that fails is heard of a little later
    assert (here.left, here.complaints) == ([], [])


@pytest.mark.parametrize("term", ["bandwidth", "RBF kernel", "arc-cosine kernel", "NTK"])
def test_search_names_the_terms_it_finds(term, visit):
    here = visit(address("search.html") + f"?q={term}").page
    place = f"glossary.html#term-{term.replace(' ', '-')}"
    expect(here.locator(f"#search-results li a[href='{place}']")).to_have_text(f"Glossary > {term}")


def test_search_names_the_theorems_it_finds_and_quotes_each_formula_once(visit, server):
    page = visit(f"{server}/search.html?q=representer theorem").page
    hit = page.locator("#search-results li a[href$='#thm-kern-representer']")
    expect(hit).to_have_text(re.compile(r" > Theorem \d+ \(.*epresenter.*\)$"))
    page.goto(f"{server}/search.html?q=ridgeless")
    quotes = page.locator("#search-results li p.context")
    expect(quotes.first).to_be_visible()
    assert not re.search(r"\\[a-z]+\b", " ".join(quotes.all_inner_texts()))  # TeX


@pytest.mark.parametrize(
    ("words", "page"), [("overfit", "early_stopping.html"), ("learning rate", "lazy.html")]
)
def test_a_hit_opens_at_the_words(words, page, visit):
    here = visit(address("search.html") + f"?q={words}")
    here.page.wait_for_load_state("networkidle")  # quotes that come later move the hits
    here.page.locator(f"#search-results li a[href='{page}']").click()
    here.page.wait_for_url(f"**/{page}*")
    found = here.page.locator("article .highlighted")
    here.page.wait_for_function("scrollY > 1000")
    here.page.evaluate(FRAMES, 35)
    seen = found.evaluate_all(
        """(marks) => marks.filter((mark) => {
          const { top, bottom } = mark.getBoundingClientRect();
          return top > 0 && bottom < innerHeight && !mark.closest('details:not([open])');
        }).map((mark) => mark.textContent.toLowerCase())"""
    )
    assert set(words.split()) <= set(seen)
    assert (here.left, here.complaints) == ([], [])


def test_search_opens_from_any_page_by_keyboard(visit):
    here = visit(address("kernels.html"))
    here.page.keyboard.press("Control+k")
    here.page.keyboard.type("ridge")
    here.page.keyboard.press("Enter")
    expect(here.page.locator("#search-results li a[href^='kernels.html']").first).to_be_visible()
    assert (here.left, here.complaints) == ([], [])


FRAMES = """async (count) => {
  while (count--) await new Promise(requestAnimationFrame);
}"""


@every_page_with_explorers
def test_contents_lead_where_they_say(page, visit):
    here = visit(address(page), viewport={"width": 1280, "height": 800}).page
    links = here.locator("#pst-page-toc-nav a, .page-toc a").all()
    missed = {}
    for target in dict.fromkeys(link.get_attribute("href") for link in links):
        here.evaluate("(id) => document.querySelector(`a[href='${id}']`).click()", target)
        here.evaluate(FRAMES, 35)
        top, end = here.evaluate(
            """(id) => [document.getElementById(id.slice(1)).getBoundingClientRect().top,
              scrollY + innerHeight >= document.documentElement.scrollHeight - 2]""",
            target,
        )
        if not (-2 <= top <= 150 or end):
            missed[target] = top
    assert links
    assert missed == {}


MARKED = """() => {
  const links = [...document.querySelectorAll('#pst-page-toc-nav a')];
  const top = (link) =>
    document.getElementById(decodeURIComponent(link.hash.slice(1))).getBoundingClientRect().top;
  const above = links.filter((link) => top(link) < 240);
  const end = scrollY + innerHeight >= document.documentElement.scrollHeight - 2;
  const read = end ? links.at(-1) : above.at(-1);
  const marked = links.filter((link) => link.matches('.active[aria-current=true]'));
  return marked.length === (read ? 1 : 0) && marked[0] === read;
}"""


@pytest.mark.parametrize("page", ["kernels.html", "limiting_ntk.html", "wide_networks.html"])
def test_contents_mark_what_is_read_where_scrolling_ends(page, visit):
    here = visit(address(page), viewport={"width": 1280, "height": 800}).page
    for _ in range(15):
        here.keyboard.press("PageDown")
        here.evaluate(FRAMES, 20)
        here.wait_for_function(MARKED, timeout=5000)
    here.keyboard.press("End")
    here.wait_for_function(MARKED, timeout=5000)


@pytest.mark.parametrize("width", [390, 1280])
def test_a_reload_comes_back_to_what_was_read(visit, width):
    here = visit(address("lazy.html"), viewport={"width": width, "height": 800}).page
    where = "document.getElementById('further-reading').getBoundingClientRect().top"
    here.evaluate("document.getElementById('further-reading').scrollIntoView()")
    here.evaluate(FRAMES, 10)
    here.evaluate("scrollBy(0, -200)")
    here.evaluate(FRAMES, 10)
    before = here.evaluate(where)
    here.reload()
    here.evaluate(FRAMES, 35)
    assert abs(here.evaluate(where) - before) < 5


def test_the_address_of_a_heading_shows_under_the_mouse_and_by_keyboard(visit):
    here = visit(address("lazy.html") + "#50%")  # which names no place
    heading = here.page.locator("article h2").first
    sign = heading.locator(".headerlink")
    expect(sign).to_have_css("opacity", "0")
    heading.hover()
    expect(sign).to_have_css("opacity", "1")
    here.page.mouse.move(0, 0)
    expect(sign).to_have_css("opacity", "0")
    here.page.keyboard.press("Shift")
    sign.focus()
    expect(sign).to_have_css("opacity", "1")
    assert here.complaints == []


@every_page
def test_every_picture_has_a_name(desk):
    nameless = desk.page.evaluate(
        """() => {
          const named = (node) => node.getAttribute('aria-label')?.trim()
            || document.getElementById(node.getAttribute('aria-labelledby'))?.textContent.trim()
            || node.querySelector(':scope > title')?.textContent.trim();
          // what is in a button or in a picture is not announced: the button or the picture is
          const quiet = '[aria-hidden=true], button, [role=img] *';
          const images = [...document.images].filter((img) => !img.alt.trim());
          const drawings = [...document.querySelectorAll('svg, [role=img]')]
            .filter((node) => !named(node) && !node.closest(quiet));
          return [...images, ...drawings].map((node) => node.outerHTML.slice(0, 200));
        }"""
    )
    assert nameless == []


@every_page
def test_mathematics_is_rendered_and_its_fonts_load(desk):
    found = desk.page.evaluate(
        r"""async () => {
          await document.fonts.ready;
          const text = document.body.cloneNode(true);
          text.querySelectorAll('script, style, noscript, pre, code, .katex')
            .forEach((node) => node.remove());
          const raw = /\$[^\s$][^$\n]*\$|\\\(|\\\[|\\begin\{/g;
          const fonts = [...document.fonts].filter((font) => font.family.startsWith('KaTeX'));
          return {
            raw: text.textContent.match(raw) ?? [],
            errors: [...document.querySelectorAll('.katex-error, merror')].map((n) => n.outerHTML),
            unrendered: [...document.querySelectorAll('span.math, div.math')]
              .filter((node) => !node.querySelector('.katex')).map((node) => node.outerHTML),
            lost: fonts.filter((font) => font.status === 'error').map((font) => font.family),
            formulas: document.querySelectorAll('.katex').length,
            loaded: fonts.filter((font) => font.status === 'loaded').length,
          };
        }"""
    )
    formulas, loaded = found.pop("formulas"), found.pop("loaded")
    assert found == {"raw": [], "errors": [], "unrendered": [], "lost": []}
    assert loaded or not formulas, "no KaTeX font was loaded"


# ---------------------------------------------------------------- explorers


def explorers(page: Page) -> list[Locator]:
    """Those alive, by their ids: Playwright takes long to look for ``LIVE``, at each call anew."""
    ids = page.evaluate("(live) => [...document.querySelectorAll(live)].map((f) => f.id)", LIVE)
    assert all(ids)
    assert len(set(ids)) == len(ids)
    return [page.locator(f"figure[id='{name}']") for name in ids]


def controls(explorer: Locator, kind: str) -> list[Locator]:
    return explorer.locator(f"{kind}[data-control]").all()


def named(explorer: Locator, control: Locator | None = None) -> str:
    name = explorer.get_attribute("data-name") or "explorer"
    return f"{name}, {control.get_attribute('data-control')}" if control else name


NUMBERED = """(node) => {
  const seen = (globalThis.picturesSeen ??= new Map());
  const text = node.innerHTML;
  return seen.get(text) ?? (seen.set(text, seen.size), seen.size - 1);
}"""


def picture(explorer: Locator) -> int:
    """The number of the picture shown, among the different ones seen on its page."""
    return explorer.locator(".ntk-picture").evaluate(NUMBERED)


@every_page_with_explorers
def test_every_explorer_comes_alive(page, desk):
    assert desk.page.locator(LIVE).count() == source(page).explorers
    for explorer in explorers(desk.page):
        expect(explorer.locator(".ntk-picture")).to_have_accessible_name(re.compile(r"\S"))
        expect(explorer.locator(".ntk-text")).to_have_text(re.compile(r"\S"))


@every_page_with_explorers
def test_every_step_of_every_slider_changes_the_picture_and_what_is_said(desk):
    same = []
    for explorer in explorers(desk.page):
        for slider in controls(explorer, "input[type=range]"):
            expect(slider).to_have_accessible_name(re.compile(r"\S"))
            last = int(slider.get_attribute("max"))
            seen = []
            for value in range(last + 1):
                slider.fill(str(value))
                seen.append((picture(explorer), slider.get_attribute("aria-valuetext")))
            for value in range(last):
                before, after = seen[value], seen[value + 1]
                if before[0] == after[0] or before[1] == after[1] or not after[1]:
                    same.append(f"{named(explorer, slider)}: {before[1]} to {after[1]}")
            assert last > 0
    assert same == []
    assert desk.complaints == []


@every_page_with_explorers
def test_every_entry_of_every_menu_changes_the_picture(desk):
    same = []
    for explorer in explorers(desk.page):
        for menu in controls(explorer, "select"):
            expect(menu).to_have_accessible_name(re.compile(r"\S"))
            words = menu.locator("option").all_inner_texts()
            seen = []
            for index in range(len(words)):
                menu.select_option(index=index)
                seen.append(picture(explorer))
            if len(set(seen)) < len(words):
                same.append(f"{named(explorer, menu)}: {words}")
    assert same == []
    assert desk.complaints == []


@every_page_with_explorers
def test_sliders_obey_the_keyboard(desk):
    for explorer in explorers(desk.page):
        for slider in controls(explorer, "input[type=range]"):
            last = slider.get_attribute("max")
            slider.focus()
            shown, at = picture(explorer), slider.input_value()
            for key, value in [
                ("Home", "0"),
                ("ArrowRight", "1"),
                ("ArrowLeft", "0"),
                ("End", last),
            ]:
                desk.page.keyboard.press(key)
                expect(slider, f"{named(explorer, slider)}: {key}").to_have_value(value)
                now = picture(explorer)
                assert (now != shown) == (value != at)
                shown, at = now, value


@every_page_with_explorers
def test_play_starts_stops_and_ends_by_keyboard(desk):
    clock, keyboard = desk.page.clock, desk.page.keyboard
    clock.pause_at("2100-01-01")
    buttons = [b for explorer in explorers(desk.page) for b in explorer.locator(".ntk-play").all()]
    for button in buttons:
        slider = button.locator("xpath=..").locator("input[type=range]")
        slider.fill("0")
        expect(button).to_have_accessible_name(re.compile("^Play "))
        button.focus()
        keyboard.press("Enter")
        expect(button).to_have_accessible_name(re.compile("^Stop "))
        for _ in range(50):
            clock.run_for(100)
            if slider.input_value() != "0":
                break
        expect(slider).to_have_value("1")
        keyboard.press("Space")
        expect(button).to_have_accessible_name(re.compile("^Play "))
        clock.run_for(10_000)
        expect(slider).to_have_value("1")
        keyboard.press("Enter")
        for _ in range(30):
            clock.run_for(2_000)
            if slider.input_value() == slider.get_attribute("max"):
                break
        clock.run_for(2_000)  # a frame lasts 900 ms, the last one too
        expect(slider).to_have_value(slider.get_attribute("max"))
        expect(button).to_have_accessible_name(re.compile("^Play "))
    clock.resume()


@every_page_with_explorers
def test_nothing_plays_for_readers_who_ask_for_less_motion(desk):
    buttons = desk.page.locator(f"{LIVE} .ntk-play:visible")
    sliders = desk.page.locator(f"{LIVE}:has(input[type=range])").count()
    assert buttons.count() == sliders
    desk.page.emulate_media(reduced_motion="reduce")
    assert buttons.count() == 0
    desk.page.emulate_media(reduced_motion="no-preference")


HEIGHTS = """[...document.querySelectorAll('figure.ntk-explorer')]
    .map((figure) => Math.round(figure.getBoundingClientRect().height))"""


@pytest.mark.parametrize("width", [390, 1280])
@every_page_with_explorers
def test_nothing_moves_when_explorers_come_alive(page, visit, width):
    """The first frame keeps the room that the controls will take."""
    here = visit("about:blank", asleep=True, viewport={"width": width, "height": 900}).page
    kept = f"addEventListener('DOMContentLoaded', () => (globalThis.kept = {HEIGHTS}))"
    here.add_init_script(kept)
    here.goto(address(page))
    wake_explorers(here)
    assert here.evaluate("kept") == here.evaluate(HEIGHTS)


LOADED = "document.querySelectorAll('figure[data-explorer]:not([tabindex])').length === 0"


def sleepers(here) -> Locator:
    """The explorers that sleep on a phone, below the first screens; their frames have come."""
    here.page.wait_for_function(LOADED)
    asleep = here.page.locator("figure[data-explorer]")
    assert asleep.count() > 3
    return asleep


ON_A_PHONE = {"asleep": True, "viewport": {"width": 390, "height": 844}}


def test_an_explorer_wakes_when_the_window_comes_near(visit):
    here = visit(address("kernels.html"), **ON_A_PHONE)
    asleep = sleepers(here)
    before = asleep.count()
    last = asleep.last.element_handle()
    above = last.evaluate("(figure) => scrollY + figure.getBoundingClientRect().top")
    here.page.evaluate("(top) => scrollTo({ top, behavior: 'instant' })", above - 2 * 844 - 100)
    here.page.evaluate(FRAMES, 10)
    assert last.evaluate("(figure) => figure.isConnected")
    last.evaluate("(figure) => figure.scrollIntoView({ behavior: 'instant', block: 'end' })")
    here.page.wait_for_function("(figure) => !figure.isConnected", arg=last)
    assert 0 < asleep.count() < before
    assert here.complaints == []


def test_an_explorer_reached_by_keyboard_wakes_at_its_first_control(visit):
    here = visit(address("kernels.html"), **ON_A_PHONE)
    last = sleepers(here).last.element_handle()
    last.focus()
    here.page.wait_for_function("(figure) => !figure.isConnected", arg=last)
    control = here.page.locator(":focus")
    assert control.evaluate(
        "(node) => node === node.closest('figure').querySelector('input, select')"
    )
    expect(here.page.locator(LIVE).last.locator("input, select").first).to_be_focused()


@pytest.fixture(scope="module")
def drawn() -> set[str]:
    """The characters that the icon font inside the style sheet draws."""
    sheet = (SITE / "_static" / "book-bundle.css").read_text(encoding="utf-8")
    (data,) = re.findall(r"data:font/woff;base64,([\w+/=]+)", sheet)
    return {chr(code) for code in TTFont(io.BytesIO(base64.b64decode(data))).getBestCmap()}


@every_page
def test_every_icon_is_in_the_font(desk, drawn):
    shown = desk.page.evaluate(
        """() => [...document.querySelectorAll('[class*="fa-"]')].map((node) => {
          const { content, fontFamily } = getComputedStyle(node, '::before');
          return [node.className, content.slice(1, -1), fontFamily];
        })"""
    )
    assert shown
    assert [icon for icon in shown if icon[1] not in drawn or "Font Awesome" not in icon[2]] == []


@every_page_with_explorers
def test_without_scripts_the_first_frame_and_its_text_stand(page, visit):
    here = visit(address(page), scripts=False)
    figures = here.page.locator("figure[data-explorer]")
    assert figures.count() == source(page).explorers
    for figure in figures.all():
        expect(figure.locator(".ntk-picture > *").first).to_be_visible()
        expect(figure.locator(".ntk-text")).to_be_visible()
        expect(figure.locator(".ntk-text")).to_have_text(re.compile(r"\S"))


# ---------------------------------------------------------------- seen by everybody


@every_page
def test_axe_finds_nothing_in_either_theme(page, visit):
    here = visit(address(page), clock=True)
    unfold(here.page)
    found = all_findings(here.page)
    assert not found, "\n".join(found)


WIDE = """() => [
  ...document.querySelectorAll('.katex-display .katex-html, .pst-scrollable-table-container'),
].map((node) => ({
  text: node.textContent.slice(0, 100),
  scrolls: node.scrollWidth > node.clientWidth,
  fades: getComputedStyle(node).maskImage !== 'none',
}))"""


@every_page
def test_what_goes_on_at_the_side_fades_there_and_nothing_else(phone):
    found = phone.evaluate(WIDE)
    assert [node for node in found if node["scrolls"] != node["fades"]] == []


@every_page
def test_every_formula_of_a_line_of_its_own_fits_a_phone(phone):
    wide = phone.evaluate(
        """() => [...document.querySelectorAll('.katex-display')]
          .filter((box) => { const html = box.querySelector('.katex-html');
            return html.scrollWidth > html.clientWidth; })
          .map((box) => box.querySelector('annotation').textContent)"""
    )
    assert wide == []


PARTED = """() => [...document.querySelectorAll('article span.math')].flatMap((formula) => {
  const bases = [...formula.querySelectorAll('.base')];
  const parted = (text, start, end, base) => {
    const range = document.createRange();
    range.setStart(text, start);
    range.setEnd(text, end);
    const [one, other] = [range.getBoundingClientRect(), base.getBoundingClientRect()];
    return one.width > 0 && (one.bottom <= other.top || one.top >= other.bottom);
  };
  const { previousSibling: before, nextSibling: after } = formula;
  const marked = after?.nodeType === Node.TEXT_NODE && /^[.,;:!?)]/.test(after.data);
  const opened = before?.nodeType === Node.TEXT_NODE && /\\($/.test(before.data);
  return (marked && parted(after, 0, 1, bases.at(-1))) ||
    (opened && parted(before, before.length - 1, before.length, bases[0]))
    ? [formula.querySelector('annotation').textContent] : [];
})"""


@every_page
def test_no_line_parts_a_formula_from_its_punctuation(phone):
    assert phone.evaluate(PARTED) == []


@every_page
def test_what_scrolls_in_a_narrow_window_is_reached_by_keyboard(phone):
    found = findings(phone, runOnly=SCROLLERS)
    assert not found, "\n".join(found)


@every_page
def test_fits_a_phone(phone):
    measured = phone.evaluate(
        """() => ({
          page: document.documentElement.scrollWidth,
          screen: document.documentElement.clientWidth,
          wide: [...document.querySelectorAll('main *')]
            .filter((node) => node.getBoundingClientRect().right > innerWidth + 1)
            .map((node) => node.outerHTML.slice(0, 100)).slice(0, 5),
        })"""
    )
    assert measured["page"] <= measured["screen"], measured


@every_page_with_explorers
def test_panels_are_stacked_on_a_phone_and_sliders_end_together(phone):
    wide = phone.evaluate(
        """() => [...document.querySelectorAll("figure.ntk-explorer")].flatMap((figure) => {
          const box = (node) => node.getBoundingClientRect();
          const out = [...figure.querySelectorAll("*:not(svg *)")].filter((node) =>
            box(node).width
            && (box(node).right > box(figure).right + 1 || box(node).left < box(figure).left - 1));
          const drawings = [...figure.querySelectorAll(".ntk-picture > svg")];
          const beside = drawings.slice(1).some((svg, i) => box(svg).top < box(drawings[i]).bottom);
          const small = drawings.some((svg) => box(svg).width < 276);
          const ends = figure.querySelectorAll("input[type=range]");
          const uneven = new Set([...ends].map((slider) => Math.round(box(slider).right))).size > 1;
          return out.length || beside || small || uneven
            ? [[figure.id, out.map((n) => n.className), beside, small, uneven]] : [];
        })"""
    )
    assert wide == []


@every_page
def test_no_formula_is_cut_off_on_a_phone(phone):
    cut = phone.evaluate(
        """() => [...document.querySelectorAll('article .katex-html')].filter((formula) => {
          const parts = [...formula.querySelectorAll('.base')]
            .map((part) => part.getBoundingClientRect());
          const left = Math.min(...parts.map((part) => part.left));
          const right = Math.max(...parts.map((part) => part.right));
          let clip = formula, style;
          do style = getComputedStyle(clip);
          while ((style.overflowX === 'visible' || clip.scrollWidth <= clip.clientWidth)
            && (clip = clip.parentElement));
          const edge = clip?.getBoundingClientRect() ?? { left: 0, right: innerWidth };
          const scrolls = clip && /auto|scroll/.test(style.overflowX);
          return left < edge.left - 1 || (!scrolls && right > edge.right + 1);
        }).map((formula) => formula.parentElement.querySelector('annotation').textContent)"""
    )
    assert cut == []


def luminance(colour: str) -> float:
    """Relative luminance of ``rgb(r, g, b)`` (WCAG 2)."""
    channels = [float(value) / 255 for value in re.findall(r"[\d.]+", colour)]
    assert len(channels) == 3, f"{colour} is not an opaque colour"
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(w * c for w, c in zip([0.2126, 0.7152, 0.0722], linear, strict=True))


def contrast(one: str, other: str) -> float:
    dark, light = sorted([luminance(one), luminance(other)])
    return (light + 0.05) / (dark + 0.05)


@pytest.fixture
def colours(desk):
    """``colours(scheme)``: what the explorers of a page are drawn in, and on what."""
    style = mpl.rc_params_from_file(
        REPO / "ntk_lib" / "page" / "book.mplstyle", use_default_template=False
    )
    cycle = style["axes.prop_cycle"].by_key()["color"]
    wanted = {f"curve {i}": f"var(--ntk-c{i}, #{c.strip('#')})" for i, c in enumerate(cycle)}
    wanted["ink"] = "var(--ntk-ink, #000000)"

    def read(scheme: str) -> list[dict[str, str]]:
        desk.page.emulate_media(color_scheme=scheme)
        settle(desk.page)
        return desk.page.evaluate(
            """([live, wanted]) => [...document.querySelectorAll(live)].map((explorer) => {
              const found = { text: getComputedStyle(explorer.querySelector('.ntk-text')).color };
              const probe = explorer.appendChild(document.createElement('span'));
              for (const [name, value] of Object.entries(wanted)) {
                probe.style.color = value;
                found[name] = getComputedStyle(probe).color;
              }
              probe.remove();
              let node = explorer, ground;
              do ground = getComputedStyle(node).backgroundColor;
              while (ground === 'rgba(0, 0, 0, 0)' && (node = node.parentElement));
              return { ...found, ground };
            })""",
            [LIVE, wanted],
        )

    yield read
    desk.page.emulate_media(color_scheme="light")
    settle(desk.page)


@every_page_with_explorers
def test_ink_and_curves_follow_the_theme_and_stand_out(colours):
    light, dark = colours("light"), colours("dark")
    faint = set()
    for found in light + dark:
        for name in found.keys() - {"ground"}:
            ratio = contrast(found[name], found["ground"])
            if ratio < (3.0 if name.startswith("curve") else 4.5):
                faint.add(f"{name} {found[name]} on {found['ground']}: {ratio:.2f}")
    assert sorted(faint) == []
    for by_day, by_night in zip(light, dark, strict=True):
        assert by_day["ink"] != by_night["ink"]
        assert by_day["ground"] != by_night["ground"]
