"""The page that says how this build went, and how long the tests took."""

import datetime
import importlib.metadata
import json
import os
import platform
from pathlib import Path

import doors
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

CLOCK = doors.REPO / "benchmarks" / "clock.json"

# what a reader of the status page would look for; the rest is in requirements.txt
PACKAGES = [
    *("jax", "jaxlib", "numpy", "scipy", "matplotlib", "anywidget", "diffrax", "ipywidgets"),
    *(
        "jupyter-book",
        "sphinx",
        "myst-nb",
        "sphinx-book-theme",
        "jupyterlab",
        "nbval",
        "playwright",
    ),
]


class build_status(nodes.General, nodes.Element):
    """Stands for the tables until all notebooks have been executed."""


class Status(SphinxDirective):
    def run(self) -> list[nodes.Node]:
        return [build_status()]


class Clock(SphinxDirective):
    """The seconds that each step of ``make test`` took, run by run: what ``make clock`` kept."""

    def run(self) -> list[nodes.Node]:
        self.env.note_dependency(str(CLOCK))
        runs = json.loads(CLOCK.read_text(encoding="utf-8"))
        steps = list(dict.fromkeys(step for run in runs for step in run["steps"]))
        rows = [row(key, *(run[key] for run in runs)) for key in ("date", "machine", "caches")]
        rows += [row(step, *(run["steps"].get(step, "") for run in runs)) for step in steps]
        rows.append(row("together", *(sum(run["steps"].values()) for run in runs)))
        return [table(["seconds", *(f"at {run['commit']}" for run in runs)], rows)]


def counts(notebook: Path) -> dict[str, int]:
    """What there is to count in a notebook as it is stored: its cells, checks and explorers."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    prose = "".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    printed = "".join("".join(out.get("text", [])) for cell in code for out in cell["outputs"])
    return {
        "cells": len(code),
        "checks": printed.count("✓"),
        "explorers": sum("@explore(" in "".join(cell["source"]) for cell in code),
        "exercises": prose.count("{exercise-start}"),
    }


def row(*entries) -> nodes.row:
    made = nodes.row()
    for entry in entries:
        content = entry if isinstance(entry, nodes.Node) else nodes.Text(str(entry))
        made += nodes.entry("", nodes.paragraph("", "", content))
    return made


def table(head: list[str], rows: list[nodes.row]) -> nodes.table:
    group = nodes.tgroup(cols=len(head))
    group += [nodes.colspec(colwidth=1) for _ in head]
    group += nodes.thead("", row(*head))
    group += nodes.tbody("", *rows)
    return nodes.table("", group, classes=["colwidths-auto"])


def chapter_rows(app: Sphinx, docname: str) -> list[nodes.row]:
    rows, total = [], {"seconds": 0.0, "cells": 0, "checks": 0, "explorers": 0, "exercises": 0}
    for chapter in doors.in_order(app):
        source = Path(app.env.doc2path(chapter))
        seconds = doors.runtime(app.env, chapter)
        if source.suffix != ".ipynb" or seconds is None:
            continue
        found = {"seconds": seconds, **counts(source)}
        total = {key: total[key] + found[key] for key in total}
        link = nodes.reference("", app.env.titles[chapter].astext(), internal=True)
        link["refuri"] = app.builder.get_relative_uri(docname, chapter)
        rows.append(row(link, f"{seconds:.0f}", *list(found.values())[1:]))
    return [*rows, row("together", f"{total['seconds']:.0f}", *list(total.values())[1:])]


def fill_status(app: Sphinx, doctree, docname: str) -> None:
    for place in list(doctree.findall(build_status)):
        head = ["chapter", "seconds", "cells of code", "checks", "explorers", "exercises"]
        when = datetime.datetime.now(datetime.UTC).date().isoformat()
        commit = doors.git("rev-parse", "--short", "HEAD") or "not in a git repository"
        machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors"
        build = [row("date", when), row("commit", commit), row("machine", machine)]
        build.append(row("Python", platform.python_version()))
        build += [row(name, importlib.metadata.version(name)) for name in PACKAGES]
        chapters, versions = (
            table(head, chapter_rows(app, docname)),
            table(["part", "version"], build),
        )
        place.replace_self([chapters, versions])


def setup(app: Sphinx) -> dict:
    app.add_node(build_status)
    app.add_directive("build-status", Status)
    app.add_directive("build-clock", Clock)
    app.connect("doctree-resolved", fill_status)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
