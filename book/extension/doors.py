"""Where a chapter can be run.

Links lead to the repository that publishes the book: a fork's book leads to the fork, without an
edit. In this order: the repository whose GitHub workflow builds it, the remote ``origin`` of the
clone, the one default, ``repository: url`` in ``_config.yml``.
"""

import html
import os
import re
import subprocess
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx

REPO = Path(__file__).parents[2]
REMOTE = re.compile(r"^(?:https?://|ssh://|git@)(?:[^@/]+@)?([\w.-]+\.\w+)[:/](.+?)(?:\.git)?/?$")


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
<code>.venv/bin/jupyter lab book/{name}.ipynb</code>. Running all of it takes {time}.
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


def source(options: dict, name: str) -> str:
    """Where the repository shows a notebook."""
    url, branch = options["repository_url"], options.get("repository_branch") or "main"
    tree = f"{url}/-/blob" if "gitlab" in url else f"{url}/blob"
    return f"{tree}/{branch}/book/{name}.ipynb"


def _quoted(url: str) -> str:
    return url.replace(":", "%3A").replace("/", "%2F")


def runtime(env, docname: str) -> float | None:
    """Seconds that the notebook took when it was last executed."""
    return env.nb_metadata.get(docname, {}).get("exec_data", {}).get("runtime")


def in_minutes(seconds: float) -> str:
    """About how long it takes; a loaded machine takes longer, so no more than that is said."""
    minutes = round(seconds / 60)
    if seconds < 50:
        return "less than a minute"
    return f"about {minutes} minutes" if minutes > 1 else "about a minute"


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
        time=in_minutes(seconds),
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


def in_order(app: Sphinx) -> list[str]:
    """The pages in the order of the book."""
    order = [app.config.root_doc]
    for name in order:
        order += [d for d in app.env.toctree_includes.get(name, []) if d not in order]
    return order


def setup(app: Sphinx) -> dict:
    app.connect("config-inited", set_repository)
    app.connect("doctree-resolved", add_doors)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
