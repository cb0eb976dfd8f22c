"""What references lead to, shown where they stand: equations, theorems, terms and sources.

A page opened from a file may not read another. So what a page's links lead to is collected when all
pages are written, into one script a page, which previews.js asks for with the first of its links.
"""

import functools
import html
import json
import re
from collections.abc import Callable
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

ARTICLE = re.compile(r"<article\b.*?</article>", re.S)
LINK = re.compile(r'<a class="[^"]*\binternal\b[^"]*" href="([^"#?]*)#([^"?]+)"')
HEADERLINK = re.compile(r'<a class="headerlink".*?</a>')
ID = re.compile(r' id="[^"]*"')
FOLDER = "previews"


def element(page: str, name: str) -> tuple[str, int] | None:
    """The element with this id, with all that is in it, and where it ends."""
    opening = re.search(rf'<(\w+)\b[^>]*\bid="{re.escape(name)}"[^>]*>', page)
    if not opening:
        return None
    depth = 0
    for tag in re.finditer(rf"<(/?){opening[1]}\b[^>]*>", page[opening.start() :]):
        depth += -1 if tag[1] else 1
        if depth == 0:
            end = opening.start() + tag.end()
            return page[opening.start() : end], end
    return None


def preview(page: str, name: str) -> str:
    """What a reference to this place shows; nothing where it is a section, a figure, a page."""
    found = element(page, name)
    if not found:
        return ""
    shown, end = found
    opening = shown[: shown.index(">") + 1]
    if shown.startswith("<dt"):
        text = re.compile(r"(?:\s*<dt\b.*?</dt>)*\s*<dd\b[^>]*>(.*?)</dd>", re.S).match(page, end)
        shown = f"<p><strong>{HEADERLINK.sub('', _inside(shown))}</strong></p>{text[1]}"
    elif 'class="citation"' in opening:
        shown = shown.replace(' role="listitem"', "", 1)
    elif not name.startswith("equation-") and not re.search(
        r'class="[^"]*\b(?:proof|exercise)\b', opening
    ):
        return ""
    return " ".join(ID.sub("", HEADERLINK.sub("", shown)).split())


def _inside(shown: str) -> str:
    return shown[shown.index(">") + 1 : shown.rindex("<")]


def from_elsewhere(shown: str, page: str) -> str:
    """With links that lead to the same places from another page."""
    return shown.replace('href="#', f'href="{page}#')


def collect(name: str, page: str, read: Callable[[str], str]) -> dict[str, str]:
    """What the links of a page lead to, by their addresses; ``read`` gives the other pages."""
    article = ARTICLE.search(page)
    found = {}
    for target, place in dict.fromkeys(LINK.findall(article[0] if article else "")):
        there = page if target in {"", name} else read(target)
        shown = preview(there, html.unescape(place))
        if shown:
            address = html.unescape(f"{target}#{place}")
            found[address] = from_elsewhere(shown, target) if target else shown
    return found


def write_previews(app: Sphinx, exception: Exception | None) -> None:
    if exception or app.builder.format != "html":
        return
    out = Path(app.outdir)

    @functools.cache
    def read(page: str) -> str:
        path = out / page
        return path.read_text(encoding="utf-8") if path.is_file() else ""

    folder = out / "_static" / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    for name in sorted(app.env.found_docs):
        found = collect(f"{name}.html", read(f"{name}.html"), read)
        text = json.dumps(found, ensure_ascii=False, separators=(",", ":"))
        (folder / f"{name}.js").write_text(f"ntkPreviews({text});\n", encoding="utf-8")


def name_kinds(app, pagename, templatename, context, doctree) -> None:
    """Tell the search page which place is which theorem: the titles in its index leave that out."""
    if pagename != "search":
        return
    kinds = {}
    for name, known in getattr(app.env, "proof_list", {}).items():
        counted = app.env.toc_fignumbers.get(known["docname"], {}).get(known["countertype"], {})
        number = ".".join(map(str, counted.get(name, ())))
        kinds[name] = f"{known['realtype'].title()} {number}".strip()
    for counted in app.env.toc_fignumbers.values():
        for name, number in counted.get("exercise", {}).items():
            kinds[name] = f"Exercise {'.'.join(map(str, number))}"
    script = f'<script type="application/json" id="search-kinds">{json.dumps(kinds)}</script>'
    context["metatags"] = context.get("metatags", "") + script


def read_terms_anew(app: Sphinx, env: BuildEnvironment, *changes: set[str]) -> list[str]:
    """The glossary at every build: a search knows the terms only of pages that were read for it."""
    return [name for name in env.found_docs if name == "glossary"]


def setup(app: Sphinx) -> dict:
    app.connect("env-get-outdated", read_terms_anew)
    app.connect("html-page-context", name_kinds)
    app.connect("build-finished", write_previews, priority=950)  # after the sheets are bundled
    return {"parallel_read_safe": True, "parallel_write_safe": True}
