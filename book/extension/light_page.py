"""What keeps a page light: one style sheet with what is used, few icons, scripts that wait.

Jupyter Book links fourteen style sheets, of which a page uses a tenth, an icon script of 1.5 MB for
some twenty icons, and the search index on every page. The theme's templates stay as they are: what
they render is trimmed on its way to the file, and the sheets are bundled when all pages are there.
"""

import base64
import io
import logging
import math
import re
from collections.abc import Iterable
from pathlib import Path
from posixpath import join, normpath
from urllib.parse import urlsplit

import tinycss2
from docutils import nodes
from fontTools import subset
from fontTools.ttLib import TTFont
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

BUNDLE = "book-bundle.css"
ICON_FONT = "vendor/fontawesome/webfonts/fa-solid-900.ttf"

UNIT, TALLEST = 400, 40
SHEET = re.compile(r'[ \t]*<link[^>]*rel="stylesheet"[^>]*/>\n?')
IMPORT = re.compile(r"""@import\s+(?:url\(\s*)?["']?([^"')\s;]+)["']?\s*\)?\s*;""")
SCRIPT = re.compile(r'[ \t]*<script\b([^>]*)\bsrc="([^"]*)"([^>]*)></script>\n?')
PRELOAD = re.compile(r'[ \t]*<link rel="preload" as="script"[^>]*/>\n?')
# What thebe would read: it is dropped (static_page.py).
THEBE = re.compile(
    r'[ \t]*<script type="text/x-thebe-config">.*?</script>\s*'
    r"<script>kernelName = [^<]*</script>\n?",
    re.S,
)
VIEWPORT = re.compile(r'<meta name="viewport"[^>]*/>')
SIDEBAR = '<div id="pst-primary-sidebar"'
TABLE = "pst-scrollable-table-container"
PRE = re.compile(r"<pre(?=[ >])(?![^>]*tabindex)")
# What the theme's scripts do to the whole chapter when a page opens: they measure all code and
# tables (page.js does it later), and look for notes in the margin by 28 classes at once, which
# takes five times as long as one after the other.
SLOW = {
    "pydata-sphinx-theme.js": (
        r'"complete"===document\.readyState\?(\w)\(\):window\.addEventListener\("load",\1\)',
        "0",
    ),
    "sphinx-book-theme.js": (
        r'document\.querySelectorAll\((\w)\.join\(", "\)\)',
        r"\1.flatMap((s)=>[...document.querySelectorAll(s)])",
    ),
}
# Names, punctuation and spaces in code have the colour of text: a seventh of a chapter's elements.
PLAIN = re.compile(r'<span class="(?:n|p|w)">([^<]*)</span>')
# Parts of Bootstrap that its script knows and the theme does not use.
NEVER = ("accordion", "carousel", "modal", "offcanvas", "popover", "toast")
SEARCH = ("searchtools.js", "language_data.js", "searchindex.js")


# ---------------------------------------------------------------- the page


def trim(page: str, *, search: bool) -> tuple[str, list[str]]:
    """The page with one style sheet and deferred scripts, and the addresses of its old sheets."""
    links = SHEET.findall(page)
    sheets = [re.search(r'href="([^"]*)"', link)[1] for link in links if "media=" not in link]
    if not sheets:
        return page, []
    root = sheets[0][: sheets[0].index("_static/")]

    def script(match: re.Match) -> str:
        before, source, after = match.groups()
        name = urlsplit(source).path.rsplit("/", 1)[-1]
        if name == "fontawesome.js" or (name in SEARCH and not search):
            return ""
        attributes = " ".join(f"{before} {after}".replace(" defer", "").split())
        return f'<script defer src="{source}"{attributes and " "}{attributes}></script>\n'

    page = SCRIPT.sub(script, PRELOAD.sub("", THEBE.sub("", page)))
    # modules wait their turn among deferred scripts, plain lines do not
    page = page.replace(
        "<script>DOCUMENTATION_OPTIONS", '<script type="module">DOCUMENTATION_OPTIONS'
    )
    bundle = f'<link rel="stylesheet" href="{root}_static/{BUNDLE}" />\n'
    page = page.replace(links[0], bundle, 1)
    for link in links:
        if "media=" not in link:
            page = page.replace(link, "", 1)
    page = PLAIN.sub(r"\1", page)
    # what may be wider than the page scrolls by keyboard; page.js takes it back where nothing does
    page = PRE.sub('<pre tabindex="0"', page)
    page = page.replace(f'<div class="{TABLE}">', f'<div class="{TABLE}" tabindex="0">')
    # the book's title stands in the sidebar outside all landmarks
    page = page.replace(SIDEBAR, f'{SIDEBAR} role="navigation" aria-label="The book"')
    # a name that is not what stands there: those who speak to their machine would not be heard
    page = page.replace(' aria-label="Toggle hidden content"', "")
    page = re.sub(r'(<button class="btn search-button-field[^>]*) aria-label="Search"', r"\1", page)
    # the page of the book's own name says it once
    page = re.sub(r"<title>(.+?) &#8212; \1</title>", r"<title>\1</title>", page)
    first = VIEWPORT.search(page)
    if first:
        page = page[: first.end()] + VIEWPORT.sub("", page[first.end() :])
    return page, [urlsplit(sheet).path[len(root) + len("_static/") :] for sheet in sheets]


def trim_what_is_rendered(app: Sphinx) -> None:
    """Let every page of an HTML build pass through ``trim`` before it is written."""
    if app.builder.format != "html":
        return
    render = app.builder.templates.render
    app.light_page_sheets = {}

    def light(template: str, context: dict) -> str:
        page, sheets = trim(render(template, context), search=context.get("pagename") == "search")
        app.light_page_sheets |= dict.fromkeys(sheets)
        return page

    app.builder.templates.render = light


# ---------------------------------------------------------------- room for what is not laid out


def height(node: nodes.Node) -> float:
    """About how tall a part of a page is, in pixels at the width of a desk; a bit more than less.

    A part far from the window is not laid out (book.css), and keeps that much room until it is.
    """
    classes = set(node.get("classes", [])) if isinstance(node, nodes.Element) else set()
    if classes & {"dropdown", "toggle", "sd-dropdown"} or node.tagname == "details":
        return 70  # folded
    if isinstance(node, nodes.raw):
        picture = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', node.astext())
        return 512 * float(picture[2]) / float(picture[1]) + 180 if picture else 0
    if isinstance(node, nodes.literal_block):
        return 20 * (node.astext().count("\n") + 1) + 40
    if isinstance(node, nodes.math_block):
        return 60 + 45 * (node.astext().count("\\\\") + 1)
    if isinstance(node, nodes.paragraph | nodes.title):
        return 27 * (len(node.astext()) // 80 + 1) + 20
    if isinstance(node, nodes.row):
        return max(height(entry) for entry in node.children)
    if "cell" in classes and classes & {"tag_hide-input", "tag_hide-cell"}:
        inputs = [n for n in node.children if "cell_input" in n.get("classes", [])]
        return 60 + sum(height(child) for child in node.children if child not in inputs)
    if "cell" in classes and classes & {"tag_remove-input", "tag_remove-cell"}:
        return sum(height(n) for n in node.children if "cell_output" in n.get("classes", []))
    return sum(height(child) for child in node.children) + 8


def keep_room(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Give each part of a chapter a class with its height, in units of 400 pixels."""
    for section in doctree.findall(nodes.section):
        if isinstance(section.parent, nodes.section):
            section["classes"].append(f"tall-{min(math.ceil(height(section) / UNIT), TALLEST)}")


def rooms() -> str:
    """The rules that belong to these classes; on a phone lines are half as long."""
    size = ".tall-{}{{contain-intrinsic-size:auto {}px}}"
    units = range(1, TALLEST + 1)
    desk = "".join(size.format(n, n * UNIT) for n in units)
    phone = "".join(size.format(n, n * UNIT * 3 // 2) for n in units)
    return f"{desk}@media(max-width:600px){{{phone}}}"


# ---------------------------------------------------------------- the sheets


def words_of(files: Iterable[Path]) -> set[str]:
    """Every word of these files: a class or an id that is used is among them."""
    return {word for f in files for word in re.findall(r"[\w-]+", f.read_text(encoding="utf-8"))}


def used(prelude: list, words: set[str]) -> bool:
    """Whether all classes and ids that a selector asks for are among the words."""
    for before, token in zip([None, *prelude], prelude, strict=False):
        if token.type == "hash" and token.value not in words:
            return False
        if (
            token.type == "ident"
            and before is not None
            and before == "."
            and token.value not in words
        ):
            return False
        if token.type == "function" and token.lower_name in {"is", "where"}:
            choices = _split(token.arguments)
            if not any(used(choice, words) for choice in choices):
                return False
    return True


def _split(tokens: list) -> list[list]:
    parts: list[list] = [[]]
    for token in tokens:
        if token == ",":
            parts.append([])
        else:
            parts[-1].append(token)
    return parts


def purge(rules: list, words: set[str]) -> str:
    """The rules that something on the pages may need, as text."""
    kept = []
    for rule in rules:
        if rule.type == "qualified-rule":
            selectors = [s for s in _split(rule.prelude) if used(s, words)]
            if selectors:
                names = ",".join(tinycss2.serialize(s).strip() for s in selectors)
                kept.append(f"{names}{{{tinycss2.serialize(rule.content).strip()}}}")
        elif rule.type == "at-rule" and rule.lower_at_keyword in {"media", "supports"}:
            inside = purge(_rules(rule.content), words)
            if inside:
                condition = tinycss2.serialize(rule.prelude).strip()
                kept.append(f"@{rule.at_keyword} {condition}{{{inside}}}")
        elif rule.type == "at-rule" and rule.lower_at_keyword not in {"charset", "import"}:
            kept.append(rule.serialize())
    return "\n".join(kept)


def _rules(source) -> list:
    return tinycss2.parse_rule_list(source, skip_comments=True, skip_whitespace=True)


def read_sheet(static: Path, name: str) -> str:
    """A sheet with the sheets that it imports, its addresses made relative to ``static``."""
    text = (static / name).read_text(encoding="utf-8")
    folder = name.rsplit("/", 1)[0] if "/" in name else ""

    def address(match: re.Match) -> str:
        target = match[2]
        if target.startswith(("data:", "#", "http")):
            return match[0]
        return f"url({normpath(join(folder, target))})"

    imported = IMPORT.findall(text)
    text = re.sub(r"""url\(\s*(["']?)(.*?)\1\s*\)""", address, IMPORT.sub("", text))
    if "@import" in text:  # it would be dropped with what it brings
        raise ExtensionError(f"{name} imports a sheet in a form that is not understood")
    return "".join(read_sheet(static, normpath(join(folder, sheet))) for sheet in imported) + text


def drop_unread_properties(css: str, words: set[str]) -> str:
    """Without the custom properties that nothing reads; those may have been the readers of more."""
    while True:
        before = css
        css = _only(_rules(css), set(re.findall(r"var\(\s*(--[\w-]+)", css)) | words)
        if css == before:
            return css


def _only(rules: list, read: set[str]) -> str:
    kept = []
    for rule in rules:
        head = tinycss2.serialize(rule.prelude).strip()
        if rule.type == "at-rule":
            head = f"@{rule.at_keyword} {head}"
        if rule.type == "at-rule" and rule.lower_at_keyword in {"media", "supports"}:
            inside = _only(_rules(rule.content), read)
        else:
            parts = tinycss2.parse_blocks_contents(rule.content, True, True)
            inside = ";".join(
                part.serialize()
                for part in parts
                if not (part.type == "declaration" and part.name.startswith("--"))
                or part.name in read
            )
        if inside:
            kept.append(f"{head}{{{inside}}}")
    return "\n".join(kept)


def without_scripts(css: str) -> str:
    """The rules of both themes once more, for pages whose scripts cannot choose between them."""
    themed = re.compile(r"""html\[data-theme=["']?(light|dark)["']?\]""")

    def of(rules: list, theme: str) -> str:
        kept = []
        for rule in rules:
            head = tinycss2.serialize(rule.prelude).strip()
            if rule.type == "at-rule" and rule.lower_at_keyword in {"media", "supports"}:
                inside = of(_rules(rule.content), theme)
                if inside:
                    kept.append(f"@{rule.at_keyword} {head}{{{inside}}}")
            elif rule.type == "qualified-rule":
                names = (tinycss2.serialize(s).strip() for s in _split(rule.prelude))
                # code goes without colours
                names = [n for n in names if theme in themed.findall(n) and ".highlight" not in n]
                if names:
                    names = ",".join(themed.sub('html[data-theme="auto"]', n) for n in names)
                    kept.append(f"{names}{{{tinycss2.serialize(rule.content).strip()}}}")
        return "".join(kept)

    rules = _rules(css)
    return "".join(
        f"@media (scripting:none) and (prefers-color-scheme:{theme}){{{of(rules, theme)}}}"
        for theme in ("light", "dark")
    )


def icons_of(css: str) -> set[int]:
    """The private code points that rules of the sheet put on the page: its icons."""
    return {ord(character) for character in css if 0xE000 <= ord(character) <= 0xF8FF}


def icon_font(whole: Path, icons: set[int]) -> bytes:
    """A font with these icons alone, as WOFF.

    Its licence keeps the old name for the whole font: a part is another font, and says where it
    comes from (book/assets/fontawesome/LICENSE.txt).
    """
    font = TTFont(whole)
    logging.getLogger("fontTools").setLevel(logging.WARNING)
    cutter = subset.Subsetter()
    cutter.populate(unicodes=icons | {0x20})
    cutter.subset(font)
    names = font["name"]
    version = names.getDebugName(5)
    for record in list(names.names):
        names.removeNames(nameID=record.nameID)
    for number, text in {
        0: "Copyright (c) 2024 Fonticons, Inc. (https://fontawesome.com)",
        1: "Icons of the book",
        2: "Solid",
        4: "Icons of the book",
        5: f"A part of {version}",
        6: "IconsOfTheBook",
        13: "SIL Open Font License, Version 1.1",
        14: "https://openfontlicense.org",
    }.items():
        names.setName(text, number, 3, 1, 0x409)
    font.flavor = "woff"
    file = io.BytesIO()
    font.save(file)
    return file.getvalue()


def bundle(app: Sphinx, exception: Exception | None) -> None:
    """Write the one style sheet and the font of its icons, and drop what they replace."""
    if exception or app.builder.format != "html" or not app.light_page_sheets:
        return
    out = Path(app.outdir)
    static = out / "_static"
    for name, (slow, quick) in SLOW.items():
        theme = static / "scripts" / name
        script, changes = re.subn(slow, quick, theme.read_text(encoding="utf-8"))
        if changes != 1:
            raise ExtensionError(f"{name} is another script than the one that SLOW mends")
        theme.write_text(script, encoding="utf-8")
    scripts = [f for f in static.rglob("*.js") if f.name != "fontawesome.js"]
    words = {w for w in words_of([*out.glob("*.html"), *scripts]) if not w.startswith(NEVER)}
    css = "".join(read_sheet(static, sheet) for sheet in app.light_page_sheets)
    css = drop_unread_properties(purge(_rules(css + rooms()), words), words)
    css = re.sub(r"@font-face\s*\{[^}]*fontawesome[^}]*\}", "", css)
    css = without_scripts(css) + css  # before the rules that mend those of a theme

    # inside the sheet, so that no button moves when its icon arrives
    font = icon_font(static / ICON_FONT, icons_of(css))
    data = f"data:font/woff;base64,{base64.b64encode(font).decode()}"
    face = f"font-family:'Font Awesome 6 Free';font-weight:900;src:url({data})"
    (static / BUNDLE).write_text(f"@font-face{{{face}}}\n{css}\n", encoding="utf-8")


def setup(app: Sphinx) -> dict:
    app.connect("doctree-resolved", keep_room)
    app.connect("builder-inited", trim_what_is_rendered)
    app.connect("build-finished", bundle, priority=900)  # the theme writes a sheet there too
    return {"parallel_read_safe": True, "parallel_write_safe": False}
