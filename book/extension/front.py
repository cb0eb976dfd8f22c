"""What search engines, link previews and lost readers meet, and how the book is cited.

A build in a GitHub workflow knows at which address its pages will stand (``BOOK_URL`` says another
one): then each page names it. A build elsewhere knows no address, and its pages name none.
"""

import html
import os
from pathlib import Path

import doors
import yaml
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

GITHUB = "https://github.com"
CITATION = doors.REPO / "CITATION.cff"
CARD = "card.png"  # the picture of a link preview, in book/assets; 1200 × 630 as previews want it
LONGEST = 160  # of a description


# ---------------------------------------------------------------- the address


def book_address(environment=os.environ) -> str:
    """Where the pages will stand, with a slash at its end; nothing where that is not known."""
    if environment.get("BOOK_URL"):
        return environment["BOOK_URL"].rstrip("/") + "/"
    owner, _, name = environment.get("GITHUB_REPOSITORY", "").partition("/")
    if not name or environment.get("GITHUB_SERVER_URL", GITHUB) != GITHUB:
        return ""
    pages = f"{owner.lower()}.github.io"
    return f"https://{pages}/" if name.lower() == pages else f"https://{pages}/{name}/"


def set_names(app: Sphinx, config) -> None:
    """The project's name and version, for the index of terms, and the address of its pages."""
    config.project = config.html_title
    config.version = config.release = citation()["version"]
    config.html_baseurl = book_address() or config.html_baseurl


# ---------------------------------------------------------------- what a page says of itself


def describe(app: Sphinx, pagename, templatename, context, doctree) -> None:
    """Give the page a description, its first sentences, and what a link preview shows."""
    text = ""
    if doctree is not None:
        paragraphs = (node for node in doctree.findall() if node.tagname == "paragraph")
        texts = (" ".join(p.astext().split()) for p in paragraphs if not _is_note(p))
        text = next((t for t in texts if t), "")
    text = text or f"{pagename.capitalize()}: {app.config.html_title}"
    if len(text) > LONGEST:
        text = text[:LONGEST].rsplit(" ", 1)[0] + " …"
    known = app.env.titles.get(pagename)
    title = known.astext() if known else app.config.html_title
    book = app.config.html_baseurl
    context["metatags"] = context.get("metatags", "") + tags(
        title, text, f"{book}{pagename}.html", book
    )


def tags(title: str, text: str, page: str, book: str) -> str:
    """The tags of a page's head; ``page`` and ``book`` are addresses, empty where not known."""
    title, text = html.escape(title), html.escape(text)
    made = [
        f'<meta name="description" content="{text}" />',
        f'<meta property="og:title" content="{title}" />',
        f'<meta property="og:description" content="{text}" />',
        '<meta property="og:type" content="website" />',
    ]
    if book:
        made += [
            f'<meta property="og:url" content="{html.escape(page)}" />',
            f'<meta property="og:image" content="{html.escape(book)}_static/{CARD}" />',
            '<meta name="twitter:card" content="summary_large_image" />',
        ]
    return "\n".join(made)


def _is_note(paragraph) -> bool:
    """Whether it is the line in italics above a chapter: minutes and prerequisites."""
    return len(paragraph) == 1 and paragraph[0].tagname == "emphasis"


# ---------------------------------------------------------------- pages that Sphinx does not make

DOOR = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="refresh" content="0; url={first}.html">
<title>{title}</title>
{tags}
</head>
<body><p><a href="{first}.html">{title}</a></p></body>
</html>
"""
LOST = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
<title>No such page: {title}</title>
<style>
:root {{ color-scheme: light dark }}
body {{ font: 1.1rem/1.6 system-ui, sans-serif; background: #ffffff; color: #1a1a1a }}
main {{ max-width: 36rem; margin: 3rem auto; padding: 0 1rem }}
@media (prefers-color-scheme: dark) {{
  body {{ background: #121212; color: #e6e6e6 }}
  a {{ color: #8ab4f8 }}
}}
</style>
</head>
<body>
<main>
<h1>There is no page here</h1>
<p>The address may have changed or lost a letter. The book is
<a href="{book}{first}.html">{title}</a>; these are its pages, and
<a href="{book}search.html">the search</a> finds a word in them.</p>
<ul>
{pages}
</ul>
</main>
</body>
</html>
"""


def write_doors(app: Sphinx, exception: Exception | None) -> None:
    """Write index.html, 404.html and, where the address is known, sitemap.xml.

    Before sphinx-external-toc writes its index.html, which has no title and no link.
    """
    if exception or app.builder.format != "html":
        return
    book, first = app.config.html_baseurl, app.config.root_doc
    name = html.escape(app.config.html_title)
    text = "An interactive textbook: why a very wide network trained by gradient descent is a "
    text += "kernel machine, what that predicts, and where it stops being true."
    canonical = f'\n<link rel="canonical" href="{html.escape(book)}{first}.html" />' if book else ""
    order = doors.in_order(app)
    item = '<li><a href="{}{}.html">{}</a></li>'
    items = [
        item.format(html.escape(book), d, html.escape(app.env.titles[d].astext())) for d in order
    ]
    head = tags(app.config.html_title, text, f"{book}{first}.html", book) + canonical
    files = {
        "index.html": DOOR.format(first=first, title=name, tags=head),
        "404.html": LOST.format(
            first=first, title=name, book=html.escape(book), pages="\n".join(items)
        ),
    }
    if book:
        places = "\n".join(f"<url><loc>{html.escape(book)}{d}.html</loc></url>" for d in order)
        files["sitemap.xml"] = (
            '<?xml version="1.0" encoding="UTF-8"?>\n'
            f'<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">\n{places}\n</urlset>\n'
        )
    for file, content in files.items():
        Path(app.outdir, file).write_text(content, encoding="utf-8")


# ---------------------------------------------------------------- how to cite


def citation() -> dict:
    """What CITATION.cff says."""
    return yaml.safe_load(CITATION.read_text(encoding="utf-8"))


def bibtex(address: str) -> str:
    """The book's entry for a bibliography; ``address`` is where it is read, or its repository."""
    known = citation()
    (author,) = (person["name"] for person in known["authors"])
    return (
        "@book{ntk_interactively,\n"
        f"  title  = {{{known['title']}}},\n"
        f"  author = {{{{{author}}}}},\n"
        f"  year   = {{{known['date-released'].year}}},\n"
        f"  note   = {{Version {known['version']}}},\n"
        f"  url    = {{{address}}},\n"
        "}"
    )


class HowToCite(SphinxDirective):
    def run(self) -> list[nodes.Node]:
        self.env.note_dependency(str(CITATION))
        options = self.config.html_theme_options
        entry = bibtex(self.config.html_baseurl or options["repository_url"])
        return [nodes.literal_block(entry, entry, language="bibtex")]


def setup(app: Sphinx) -> dict:
    app.add_directive("how-to-cite", HowToCite)
    app.connect("config-inited", set_names)
    app.connect("html-page-context", describe)
    app.connect("build-finished", write_doors, priority=100)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
