"""Links to a frame of a figure: ``[text](#FIGURE?width=512&show=weights)``, checked by the build.

FIGURE is the name of the function under ``explore``; from another page the link names its file
first, ``lazy.ipynb#FIGURE?width=64``. A value is written as the slider shows it or plainly, with
``%20`` for a space; a control that is not named stands where it starts. ``views.js`` follows such a
link on the page. A figure, control or value that does not exist is a warning of the build.
"""

import html
import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import quote, unquote

import doors
from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.transforms import SphinxTransform
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util import logging

FRAME = re.compile(r"(\w+)\?(.*)", re.DOTALL)
TEACHERS = ("lock", "hide")  # no controls: what a link does to controls
WARN = logging.getLogger(__name__).warning


class Frame(NamedTuple):
    """Where a link leads: a figure, and words for some of its controls."""

    figure: str
    asked: list[tuple[str, str]]

    @property
    def fragment(self) -> str:
        asked = (f"{name}={quote(word, safe=',')}" for name, word in self.asked)
        return f"{self.figure}?{'&'.join(asked)}"


def frame(fragment: str) -> Frame | None:
    """The frame that the part of an address after ``#`` names, if it names one."""
    if not (found := FRAME.fullmatch(fragment)):
        return None
    pairs = [pair.partition("=") for pair in found[2].split("&") if pair]
    return Frame(found[1], [(unquote(name), unquote(word)) for name, _, word in pairs])


def position(control: Mapping[str, Any], word: str) -> int | None:
    """Which of the control's values the word is, as labelled or plainly."""
    for i, (value, label) in enumerate(zip(control["values"], control["labels"], strict=True)):
        if word in (label, str(value)):
            return i
        if isinstance(value, int | float) and not isinstance(value, bool):
            try:
                if float(word) == value:
                    return i
            except ValueError:
                continue
    return None


def faults(wanted: Frame, figures: Mapping[str, list[dict]], page: str) -> list[str]:
    """What a link asks for that is not there, in words; ``figures``: controls by name."""
    if wanted.figure not in figures:
        known = ", ".join(figures) or "none"
        return [f"{page} has no figure {wanted.figure!r}; it has {known}"]
    controls = {control["name"]: control for control in figures[wanted.figure]}
    known, found = ", ".join(controls) or "none", []
    for name, word in wanted.asked:
        for each in word.split(",") if name in TEACHERS else [name]:
            if each not in controls:
                found.append(f"{wanted.figure} has no control {each!r}; it has {known}")
            elif name not in TEACHERS and position(controls[name], word) is None:
                listed = ", ".join(controls[name]["labels"])
                found.append(f"{name} of {wanted.figure} is not {word!r}, but one of {listed}")
    named = [name for name, _ in wanted.asked]
    found += [
        f"{name} stands there twice" for name in dict.fromkeys(named) if named.count(name) > 1
    ]
    return found


def figures_of(env: BuildEnvironment, docname: str) -> dict[str, list[dict]]:
    """The explorers of a page with their controls, from the state that its notebook left."""
    scripts = getattr(env, "nb_metadata", {}).get(docname, {}).get("js_files", {})
    _, attributes = scripts.get("ipywidgets_state", (None, {"body": "{}"}))
    models = json.loads(attributes["body"]).get("state", {}).values()
    states = [model["state"] for model in models if "_esm" in model["state"]]
    return {state["name"]: state["controls"] for state in states}


class SetAside(SphinxTransform):
    """Take links to frames of the same page from MyST, which would look for a heading."""

    default_priority = 870  # before MyST's 879

    def apply(self, **kwargs: Any) -> None:
        for node in self.document.findall(nodes.reference):
            fragment = node.get("refuri", "").removeprefix("#")
            if node.get("id_link") and FRAME.fullmatch(fragment):
                del node["id_link"]
                node["frame"] = fragment


class LinkFrames(SphinxPostTransform):
    """Make plain links of links to frames, and say which lead nowhere."""

    default_priority = 5  # before MyST's 9

    def run(self, **kwargs: Any) -> None:
        known: dict[str, dict[str, list[dict]]] = {}
        here = self.env.docname
        for node in list(self.document.findall(nodes.reference)):
            if "frame" in node:
                self.lead(node, here, frame(node["frame"]), known)
        for node in list(self.document.findall(addnodes.pending_xref)):
            wanted = frame(node.get("reftargetid") or "")
            if node.get("reftype") == "myst" and node.get("refdomain") == "doc" and wanted:
                link = nodes.reference("", "", *node[0].children)
                link.source, link.line = node.source, node.line
                self.lead(link, node["reftarget"], wanted, known, location=node)
                node.replace_self(link)

    def lead(
        self,
        link: nodes.reference,
        page: str,
        wanted: Frame,
        known: dict[str, dict[str, list[dict]]],
        location: nodes.Node | None = None,
    ) -> None:
        if page not in known:
            known[page] = figures_of(self.env, page)
        for fault in faults(wanted, known[page], page):
            WARN(fault, location=location or link, type="ntk", subtype="frame")
        address = f"#{wanted.fragment}"
        if page != self.env.docname:
            address = self.app.builder.get_relative_uri(self.env.docname, page) + address
        link["refuri"], link["internal"] = address, True


def name_notebook(app, pagename, templatename, context, doctree) -> None:
    """Say on the page of a notebook where the repository has it: its figures lead there."""
    if (doors.REPO / "book" / f"{pagename}.ipynb").exists():
        where = html.escape(doors.source(app.config.html_theme_options, pagename))
        tag = f'<meta name="notebook" content="{where}" />\n'
        context["metatags"] = context.get("metatags", "") + tag


def setup(app: Sphinx) -> dict:
    app.connect("html-page-context", name_notebook)
    app.add_transform(SetAside)
    app.add_post_transform(LinkFrames)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
