"""The built book as one PDF, by Chromium: what `make pdf` runs after `make book`.

    python -m scripts.pdf

The articles of all pages, in the order of `_toc.yml`, become one document with the site's style
sheets. Explorers stand at their first frame, as on a page without JavaScript; all that is folded
on screen is open.
"""

import contextlib
import html
import json
import mimetypes
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from playwright.sync_api import Browser, Page, Route, sync_playwright

from scripts.browse import NoChromium, launched

__all__ = [
    "PDF",
    "SITE",
    "WRONG",
    "chapters",
    "document",
    "lay_out",
    "page_numbers",
    "print_book",
    "write",
]

REPO = Path(__file__).parents[1]
HERE = Path(__file__).parent
SITE = REPO / "_build" / "html"
PDF = REPO / "_build" / "ntk-interactively.pdf"
# Pages have addresses of a site, so that no path of this machine gets into the PDF. Nothing is
# asked over a network: every request is answered from the folder.
ADDRESS = "http://book.invalid/"

# millimetres; a CSS pixel is 1/96 inch
SHEET, TOP, SIDE, BOTTOM = (210, 297), 20, 20, 22
PIXELS = 96 / 25.4
WIDTH = int((SHEET[0] - 2 * SIDE) * PIXELS)
HEIGHT = int((SHEET[1] - TOP - BOTTOM) * PIXELS)

# what ``pdf.js`` may find: links to nowhere, what is wider than the sheet, words that do not show,
# formulas that KaTeX could not read
WRONG = ("unresolved", "wide", "hidden", "unread")


class Chapter(NamedTuple):
    """A page of the book, and the part that it opens, if it opens one."""

    name: str
    part: str | None


def chapters() -> list[Chapter]:
    """The pages in the order of ``_toc.yml``."""
    toc = yaml.safe_load((REPO / "_toc.yml").read_text(encoding="utf-8"))

    def below(entry: dict) -> Iterator[Chapter]:
        for part in entry.get("parts", [entry]):
            caption = part.get("caption")
            for page in part.get("chapters", []) + part.get("sections", []):
                yield Chapter(page["file"], caption)
                yield from below(page)
                caption = None

    return [Chapter(toc["root"], None), *below(toc)]


def _edition() -> str:
    """The version and the commit, or the version alone outside a clone."""
    citation = yaml.safe_load((REPO / "CITATION.cff").read_text(encoding="utf-8"))
    words = f"Version {citation['version']}"
    command = ["git", "log", "-1", "--format=commit %h of %cs"]
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        run = subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=True)
        words += f", {run.stdout.strip()}"
    return words


def _one(pattern: str, text: str, where: str) -> str:
    found = re.search(pattern, text, re.DOTALL)
    if not found:
        raise ValueError(f"{where} needs {pattern!r}: is it a page of the built book?")
    return found[1]


def document(site: Path = SITE) -> str:
    """The HTML of the whole book, as ``pdf.js`` expects it.

    Raises ``ValueError`` for a page without an article, ``FileNotFoundError`` for one not built.
    """
    settings = yaml.safe_load((REPO / "_config.yml").read_text(encoding="utf-8"))
    title = html.escape(settings["title"])
    sheets: dict[str, None] = {}  # an ordered set
    articles, rules = [], []
    for name, part in chapters():
        text = (site / f"{name}.html").read_text(encoding="utf-8")
        sheets |= dict.fromkeys(re.findall(r'<link\b[^>]*rel="stylesheet"[^>]*>', text))
        article = _one(r"<article\b[^>]*>(.*)</article>", text, name)
        heading = re.sub(
            r"<a class=\"headerlink.*?</a>|<[^>]+>", "", _one("<h1>(.*?)</h1>", article, name)
        )
        caption = f'<p class="part">{html.escape(part)}</p>' if part else ""
        articles.append(f'<article class="bd-article" id="{name}">{caption}{article}</article>')
        rules.append(
            f"article#{name} {{ page: {name} }}\n"
            f"@page {name} {{ @bottom-left {{ content: {json.dumps(html.unescape(heading))} }} }}"
        )
    number = "@bottom-right { content: counter(page) }"
    return f"""<!DOCTYPE html>
<html lang="en" data-theme="light" data-mode="light">
<head>
<meta charset="utf-8">
<title>{title}</title>
<meta name="author" content="{html.escape(settings["author"])}">
{"".join(sheets)}
<style>
{(HERE / "pdf.css").read_text(encoding="utf-8")}
@page {{
  size: {SHEET[0]}mm {SHEET[1]}mm;
  margin: {TOP}mm {SIDE}mm {BOTTOM}mm;
  font: 9pt sans-serif;
  color: #57606a;
  {number}
}}
@page title {{ @bottom-right {{ content: none }} }}
{"".join(rules)}
</style>
</head>
<body>
<div class="bd-main"><div class="bd-content"><div class="bd-article-container">
<section class="pdf-title">
<p class="book">{title}</p>
<p>{html.escape(settings["author"])}</p>
<p>{html.escape(_edition())}</p>
<p class="small">This is the book on paper: each interactive figure stands still, at its first
frame, and answers, proofs and solutions are open. On its web pages the figures move, without any
installation; its notebooks run.</p>
<p>The text, the figures and the exercises are licensed under
<a href="https://creativecommons.org/licenses/by/4.0/">CC BY 4.0</a>, the code under the BSD
3-Clause licence.</p>
</section>
<nav class="pdf-contents"><h1>Contents</h1><ul></ul></nav>
{"".join(articles)}
</div></div></div>
</body>
</html>
"""


def lay_out(browser: Browser, text: str, site: Path = SITE) -> tuple[Page, dict[str, Any]]:
    """Open the document as on paper, let ``pdf.js`` fit it, and return what that counted and found.

    The lists named in ``WRONG`` are empty when all is well. The caller closes the page's context.
    """

    def answer(route: Route) -> None:
        path = route.request.url.removeprefix(ADDRESS).partition("?")[0]
        file = (site / path).resolve()
        if path == "":
            route.fulfill(body=text, content_type="text/html")
        elif file.is_file() and file.is_relative_to(site.resolve()):
            kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
            route.fulfill(body=file.read_bytes(), content_type=kind)
        else:
            route.abort()

    # scripts off: those of the pages have nothing to do on paper
    context = browser.new_context(
        viewport={"width": WIDTH, "height": HEIGHT}, java_script_enabled=False
    )
    context.set_default_timeout(300_000)
    context.route("**/*", answer)
    page = context.new_page()
    page.emulate_media(media="print", color_scheme="light")
    page.goto(ADDRESS)
    script = (HERE / "pdf.js").read_text(encoding="utf-8")
    return page, page.evaluate(script, {"height": HEIGHT})


def page_numbers(pdf: bytes) -> dict[str, int]:
    """The page on which each id stands that a link leads to; the first page is 1.

    Chromium writes pages and destinations as plain text, pages in their order.
    """
    pages = {
        number: i for i, number in enumerate(re.findall(rb"(\d+) 0 obj\n<</Type /Page\b", pdf), 1)
    }
    found = re.findall(rb"/(\S+) \[(\d+) 0 R /XYZ", pdf)
    return {name.decode(): pages[number] for name, number in found}


def write(page: Page, target: Path, *, numbered: bool = True) -> None:
    """Print what ``lay_out`` laid out. Numbers in the contents need a printing to be read from."""
    sheets = {"prefer_css_page_size": True, "print_background": True}
    if numbered:
        fill = """numbers => document.querySelectorAll(".pdf-contents a").forEach((link) =>
            (link.querySelector(".number").textContent = numbers[link.hash.slice(1)]))"""
        page.evaluate(fill, page_numbers(page.pdf(**sheets)))
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(signed(page.pdf(outline=True, tagged=True, **sheets)))


def signed(pdf: bytes) -> bytes:
    """The PDF with an author, and a creator that is no browser's description of itself.

    Chromium takes an author from nowhere, and names as the creator what it calls itself on the
    web. The new entries fill that one's place to the byte, so all offsets in the file stay right.
    """
    settings = yaml.safe_load((REPO / "_config.yml").read_text(encoding="utf-8"))
    entries = f"/Creator (make pdf)\n/Author ({settings['author']})".encode("ascii")
    found = re.findall(rb"/Creator \((?:[^()\\]|\\.)*\)", pdf)
    if len(found) != 1 or len(found[0]) < len(entries):
        raise ValueError("pdf needs one creator in its information, long enough to hold an author")
    return pdf.replace(found[0], entries.ljust(len(found[0])))


def print_book(browser: Browser, target: Path, *, numbered: bool = True) -> dict[str, Any]:
    """Write the built book to ``target``; return the report of ``lay_out``."""
    page, report = lay_out(browser, document())
    write(page, target, numbered=numbered)
    page.context.close()
    return report


def main() -> None:
    if not (SITE / "index.html").exists():
        sys.exit(f"There is no built book in {SITE.relative_to(REPO)}: run `make book` first.")
    with sync_playwright() as playwright:
        try:
            browser = launched(playwright)
        except NoChromium as error:
            sys.exit(str(error))
        report = print_book(browser, PDF)
        browser.close()
    wrong = {key: report[key] for key in WRONG if report[key]}
    if wrong:
        sys.exit(f"The PDF is not as it should be: {json.dumps(wrong, indent=1)}")
    pages = len(re.findall(rb"/Type /Page\b", PDF.read_bytes()))
    print(f"{PDF.relative_to(REPO)}: {pages} pages, {PDF.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
