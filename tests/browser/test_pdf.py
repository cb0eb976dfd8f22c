"""The PDF of the whole book: nothing is lost, cut or hidden on the way to paper."""

import re
from pathlib import Path

import pytest

from scripts.pdf import SITE, chapters, document, lay_out, print_book

PAGES = [chapter.name for chapter in chapters()]
if not (SITE / "index.html").exists():
    pytest.fail(f"There is no built book in {SITE}: run `make book` first.", pytrace=False)


@pytest.fixture(scope="module")
def printed(browser, tmp_path_factory) -> tuple[dict, str]:
    """What the document's check found, and the PDF without its streams: Chromium writes the rest
    as plain text (titles and links, but not words on a page)."""
    target = tmp_path_factory.mktemp("pdf") / "book.pdf"
    report = print_book(browser, target)
    return report, re.sub(rb"\nstream\n.*?\nendstream", b"", target.read_bytes(), flags=re.S).decode(
        "latin-1"
    )


def source(page: str) -> str:
    return (SITE / f"{page}.html").read_text(encoding="utf-8")


def test_every_explorer_and_every_folded_text_is_in_the_document(printed):
    report, _ = printed
    explorers = sum(source(page).count("data-explorer=") for page in PAGES)
    folded = sum(len(re.findall(r'class="[^"]*\b(solution|sd-dropdown)\b', source(page))) for page in PAGES)
    assert explorers > 0
    assert folded > 0
    assert (report["explorers"], report["folded"]) == (explorers, folded)


def test_nothing_is_cut_hidden_or_leads_nowhere(printed):
    report, _ = printed
    assert {key: report[key] for key in ("unresolved", "wide", "hidden")} == {
        "unresolved": [],
        "wide": [],
        "hidden": [],
    }


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


def test_every_chapter_has_pages_of_its_own(printed):
    _, pdf = printed
    starts = dict(re.findall(r"/(\S+) \[(\d+) 0 R /XYZ", pdf))
    assert len({starts[page] for page in PAGES}) == len(PAGES)
    assert len(re.findall(r"/Type /Page\b", pdf)) > len(PAGES)


def test_links_lead_into_the_book_or_to_the_web(printed):
    _, pdf = printed
    inside = set(re.findall(r"/Dest /(\S+)", pdf))
    starts = dict(re.findall(r"/(\S+) \[(\d+) 0 R /XYZ", pdf))
    assert set(PAGES) <= inside <= set(starts)
    outside = re.findall(r"/URI \((.*?)\)", pdf)
    assert outside
    assert [link for link in outside if not link.startswith("https://")] == []
    assert not re.search(r"file:|book\.invalid|" + re.escape(Path.home().as_posix()), pdf)


@pytest.mark.parametrize(
    ("broken", "complaint"),
    [
        ('<a href="#nowhere">there</a>', "unresolved"),
        ('<div style="width: 2000px">wide</div>', "wide"),
        ('<p style="visibility: hidden">hidden</p>', "hidden"),
        ("<details><summary>folded</summary><p style='opacity: 0'>faint</p></details>", "hidden"),
    ],
)
def test_a_document_that_loses_something_is_found_out(browser, broken, complaint):
    page, report = lay_out(
        browser,
        f"""<html><body><nav class="pdf-contents"><ul></ul></nav>
        <article id="one"><section id="it"><h1>One</h1><p>well</p>{broken}</section></article>
        """,
    )
    page.context.close()
    wrong = {key for key in ("unresolved", "wide", "hidden") if report[key]}
    assert wrong == {complaint}
