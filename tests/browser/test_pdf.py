"""The PDF of the whole book: nothing is lost, cut or hidden on the way to paper."""

import re

import pytest
import yaml

from scripts.pdf import ADDRESS, SITE, WRONG, chapters, lay_out, page_numbers, print_book, write

PAGES = [chapter.name for chapter in chapters()]
if not (SITE / "index.html").exists():
    pytest.fail(f"There is no built book in {SITE}: run `make book` first.", pytrace=False)


def plain(pdf: bytes) -> str:
    """A PDF without its streams: Chromium writes titles, links and pages as plain text."""
    return re.sub(rb"\nstream\n.*?\nendstream", b"", pdf, flags=re.DOTALL).decode("latin-1")


@pytest.fixture(scope="module")
def printed(browser, tmp_path_factory) -> tuple[dict, str]:
    """What the document's own check found, and the PDF as ``plain`` text."""
    target = tmp_path_factory.mktemp("pdf") / "book.pdf"
    report = print_book(browser, target, numbered=False)
    return report, plain(target.read_bytes())


def source(page: str) -> str:
    return (SITE / f"{page}.html").read_text(encoding="utf-8")


def test_every_explorer_and_every_folded_text_is_in_the_document(printed):
    report, _ = printed
    explorers = sum(source(page).count("data-explorer=") for page in PAGES)
    kinds = re.compile(r'class="[^"]*\b(solution|sd-dropdown)\b')
    folded = sum(len(kinds.findall(source(page))) for page in PAGES)
    assert explorers > 0
    assert folded > 0
    assert (report["explorers"], report["folded"]) == (explorers, folded)


def test_nothing_is_cut_hidden_or_leads_nowhere(printed):
    report, _ = printed
    assert {key: report[key] for key in WRONG} == {key: [] for key in WRONG}


def test_the_outline_names_every_chapter(printed):
    _, pdf = printed
    found = {text(title) for title in re.findall(r"<</Title (\(.*?(?<!\\)\)|<[0-9A-Fa-f]*>)", pdf)}
    titles = {re.sub(r"<.*?>", "", re.search(r"<h1>(.*?)<a", source(page))[1]) for page in PAGES}
    assert len(titles) == len(PAGES)
    assert titles <= found


def text(string: str) -> str:
    """A string of a PDF: in Latin letters, or in hexadecimal UTF-16."""
    if string[0] == "<":
        return bytes.fromhex(string[1:-1]).decode("utf-16")
    return re.sub(r"\\(.)", r"\1", string[1:-1])


def test_its_properties_name_the_book_and_no_browser(printed):
    _, pdf = printed
    settings = yaml.safe_load((SITE.parents[1] / "_config.yml").read_text(encoding="utf-8"))
    title, author = re.search(r"<</Title (.*?)\n/Creator .*?\n/Author (\(.*?\))", pdf).groups()
    assert (text(title), text(author)) == (settings["title"], settings["author"])
    assert "Mozilla" not in pdf


def test_every_chapter_starts_on_a_page_of_its_own(printed):
    _, pdf = printed
    numbers = page_numbers(pdf.encode("latin-1"))
    starts = [numbers[page] for page in PAGES]
    assert starts == sorted(set(starts))
    assert len(re.findall(r"/Type /Page\b", pdf)) >= starts[-1] > len(PAGES)


def test_links_lead_into_the_book_or_to_the_web(printed):
    _, pdf = printed
    inside = set(re.findall(r"/Dest /(\S+)", pdf))
    assert set(PAGES) <= inside <= set(page_numbers(pdf.encode("latin-1")))
    outside = re.findall(r"/URI \((.*?)\)", pdf)
    assert outside
    assert [link for link in outside if not link.startswith("https://")] == []
    assert [path for path in ("file:", ADDRESS, str(SITE.parents[1])) if path in pdf] == []


SEEN = """nodes => nodes.filter((node) =>
    node.getBoundingClientRect().height > 0 && node.checkVisibility(
        { opacityProperty: true, visibilityProperty: true, contentVisibilityAuto: true })).length"""


def test_one_chapter_prints_light_and_open_from_the_browser(visit):
    name = max(PAGES, key=lambda page: source(page).count('class="solution'))
    page = visit((SITE / f"{name}.html").as_uri(), color_scheme="dark").page
    themes = [page.evaluate("document.documentElement.dataset.theme")]
    folded = page.locator("article :is(.solution, details:not(.hide, figure *)) :is(p, pre)")
    screen = page.locator(".ntk-controls, .bd-header-article, .headerlink, .copybtn, summary svg")
    assert folded.evaluate_all(SEEN) < folded.count()
    assert screen.evaluate_all(SEEN) > 0
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    themes.append(page.evaluate("document.documentElement.dataset.theme"))
    assert folded.evaluate_all(SEEN) == folded.count() > 0
    assert screen.evaluate_all(SEEN) == 0
    assert page.locator(".ntk-picture svg").evaluate_all(SEEN) == source(name).count(
        "data-explorer="
    )
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    themes.append(page.evaluate("document.documentElement.dataset.theme"))
    assert themes == ["dark", "light", "dark"]


HEAD = """<style>@page { size: 210mm 297mm } article { break-before: page }</style>
<nav class="pdf-contents"><ul></ul></nav>"""


def test_the_contents_say_on_which_page_a_chapter_starts(browser, tmp_path):
    chapter = "<article id='{0}'><h1>{0}</h1><section id='x'><h2>{0} x</h2></section></article>"
    long = "<article id='long'><h1>long</h1><p style='height: 400mm'>two pages</p></article>"
    page, _ = lay_out(browser, HEAD + chapter.format("one") + long + chapter.format("two"))
    write(page, tmp_path / "small.pdf")
    assert page.locator(".pdf-contents .number").all_inner_texts() == ["2", "2", "3", "5", "5"]
    pdf = plain((tmp_path / "small.pdf").read_bytes())
    assert len(re.findall(r"/Type /Page\b", pdf)) == 5
    page.context.close()


@pytest.mark.parametrize(
    ("broken", "complaint"),
    [
        ('<a href="#nowhere">there</a>', "unresolved"),
        ('<div style="width: 2000px">wide</div>', "wide"),
        ('<p style="visibility: hidden">hidden</p>', "hidden"),
        ('<p class="katex"><span style="color:#cc0000;">\\kappas</span></p>', "unread"),
        ("<details><summary>folded</summary><p style='opacity: 0'>faint</p></details>", "hidden"),
    ],
)
def test_a_document_that_loses_something_is_found_out(browser, broken, complaint):
    text = f"{HEAD}<article id='one'><h1>One</h1><p>well</p>{broken}</article>"
    page, report = lay_out(browser, text)
    page.context.close()
    assert {key for key in WRONG if report[key]} == {complaint}
