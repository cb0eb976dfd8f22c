"""Where a chapter can be run, and the page that says how this build went.

Links lead to the repository that publishes the book: a fork's book leads to the fork, without an
edit. In this order: the repository whose GitHub workflow builds it, the remote ``origin`` of the
clone, the one default, ``repository: url`` in ``_config.yml``.
"""

import datetime
import html
import importlib.metadata
import json
import os
import platform
import re
import subprocess
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

REPO = Path(__file__).parents[2]
REMOTE = re.compile(r"^(?:https?://|ssh://|git@)(?:[^@/]+@)?([\w.-]+\.\w+)[:/](.+?)(?:\.git)?/?$")
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


# ---------------------------------------------------------------- the repository


def git(*arguments: str) -> str:
    """What git prints, and nothing where there is no git or no repository."""
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=REPO, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()


def publishing_repository(default: str, environment=os.environ) -> str:
    """The address of the repository that this book is built from."""
    if environment.get("GITHUB_REPOSITORY"):
        server = environment.get("GITHUB_SERVER_URL", "https://github.com")
        return f"{server}/{environment['GITHUB_REPOSITORY']}"
    remote = REMOTE.match(git("remote", "get-url", "origin"))
    return f"https://{remote[1]}/{remote[2]}" if remote else default


def set_repository(app: Sphinx, config) -> None:
    options = config.html_theme_options
    options["repository_url"] = publishing_repository(options["repository_url"])
    if os.environ.get("GITHUB_REF_TYPE") == "branch":
        options["repository_branch"] = os.environ["GITHUB_REF_NAME"]


# ---------------------------------------------------------------- doors of a chapter

DOORS = """\
<p class="doors d-print-none">Run it: {elsewhere}, or on your own machine: clone
<a href="{repository}">the repository</a>, then <code>make book</code> and
<code>.venv/bin/jupyter lab book/{name}.ipynb</code>. It ran in {seconds} when this page was built.
<a href="{notebook}" download>Download the notebook</a>.</p>"""
BINDER = """\
in <a href="{binder}">Binder</a> (no account; a minute or two to start, ten or more where it must
build the book's environment first; slower than most laptops)"""
COLAB = """\
in <a href="{colab}">Colab</a> (a Google account; its first cell installs the book in a minute or
two)"""


def links(options: dict, name: str) -> dict[str, str]:
    """Where Binder and Colab open a notebook; each knows some hosts only."""
    url, branch = options["repository_url"], options.get("repository_branch") or "main"
    found = {"binder": f"https://mybinder.org/v2/git/{_quoted(url)}/{branch}"}
    path = f"book/{name}.ipynb"
    if url.startswith("https://github.com/"):
        place = url.removeprefix("https://github.com/")
        found["binder"] = f"https://mybinder.org/v2/gh/{place}/{branch}"
        found["colab"] = f"https://colab.research.google.com/github/{place}/blob/{branch}/{path}"
    found["binder"] += f"?urlpath=lab/tree/{path}"
    return found


def _quoted(url: str) -> str:
    return url.replace(":", "%3A").replace("/", "%2F")


def runtime(env, docname: str) -> float | None:
    """Seconds that the notebook took when it was last executed."""
    return env.nb_metadata.get(docname, {}).get("exec_data", {}).get("runtime")


def add_doors(app: Sphinx, doctree, docname: str) -> None:
    """Say below a chapter's title, after its minutes and prerequisites, where it can be run."""
    source = Path(app.env.doc2path(docname))
    seconds = runtime(app.env, docname)
    title = next(doctree.findall(nodes.title), None)
    if app.builder.format != "html" or source.suffix != ".ipynb" or seconds is None or not title:
        return
    where = links(app.config.html_theme_options, docname)
    address = {key: html.escape(url) for key, url in where.items()}
    elsewhere = [BINDER.format_map(address)]
    if "colab" in address:
        elsewhere.append(COLAB.format_map(address))
    text = DOORS.format(
        name=docname,
        notebook=f"_sources/{docname}.ipynb",
        repository=html.escape(app.config.html_theme_options["repository_url"]),
        seconds=f"{seconds:.0f} seconds",
        elsewhere=", ".join(elsewhere),
    )
    section = title.parent
    place = section.index(title) + 1
    if section[place].astext().startswith("About"):
        place += 1
    else:  # the front page: what it is about comes first
        parts = [i for i, child in enumerate(section) if isinstance(child, nodes.section)]
        place = parts[0] if parts else len(section)
    section.insert(place, nodes.raw("", text, format="html"))


# ---------------------------------------------------------------- the status page


class build_status(nodes.General, nodes.Element):
    """Stands for the tables until all notebooks have been executed."""


class Status(SphinxDirective):
    def run(self) -> list[nodes.Node]:
        return [build_status()]


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
    for chapter in _in_order(app):
        source = Path(app.env.doc2path(chapter))
        seconds = runtime(app.env, chapter)
        if source.suffix != ".ipynb" or seconds is None:
            continue
        found = {"seconds": seconds, **counts(source)}
        total = {key: total[key] + found[key] for key in total}
        link = nodes.reference("", app.env.titles[chapter].astext(), internal=True)
        link["refuri"] = app.builder.get_relative_uri(docname, chapter)
        rows.append(row(link, f"{seconds:.0f}", *list(found.values())[1:]))
    return [*rows, row("together", f"{total['seconds']:.0f}", *list(total.values())[1:])]


def _in_order(app: Sphinx) -> list[str]:
    order = [app.config.root_doc]
    for name in order:
        order += [d for d in app.env.toctree_includes.get(name, []) if d not in order]
    return order


def fill_status(app: Sphinx, doctree, docname: str) -> None:
    for place in list(doctree.findall(build_status)):
        head = ["chapter", "seconds", "cells of code", "checks", "explorers", "exercises"]
        when = datetime.datetime.now(datetime.UTC).date().isoformat()
        commit = git("rev-parse", "--short", "HEAD") or "not in a git repository"
        machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors"
        build = [row("date", when), row("commit", commit), row("machine", machine)]
        build.append(row("Python", platform.python_version()))
        build += [row(name, importlib.metadata.version(name)) for name in PACKAGES]
        chapters, versions = (
            table(head, chapter_rows(app, docname)),
            table(["part", "version"], build),
        )
        place.replace_self([chapters, versions])


# ---------------------------------------------------------------- the front door

FRONT = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="refresh" content="0; url={first}.html">
<title>{title}</title>
</head>
<body><p><a href="{first}.html">{title}</a></p></body>
</html>
"""


def open_front_door(app: Sphinx, exception: Exception | None) -> None:
    """Write index.html before sphinx-external-toc does, whose page has no title and no link."""
    if not exception and app.builder.format == "html":
        title = html.escape(app.config.html_title)
        page = FRONT.format(first=app.config.root_doc, title=title)
        Path(app.outdir, "index.html").write_text(page, encoding="utf-8")


def setup(app: Sphinx) -> dict:
    app.add_node(build_status)
    app.add_directive("build-status", Status)
    app.connect("config-inited", set_repository)
    app.connect("doctree-resolved", add_doors)
    app.connect("doctree-resolved", fill_status)
    app.connect("build-finished", open_front_door, priority=100)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
