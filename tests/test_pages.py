"""What the build does to pages, links and style sheets, and the cell that installs in Colab."""

import io
import json
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
import yaml
from docutils import nodes

REPO = Path(__file__).parents[1]
sys.path.insert(0, str(REPO / "book" / "extension"))

import doors  # noqa: E402
import light_page  # noqa: E402

NOTEBOOKS = sorted((REPO / "book").glob("*.ipynb"))
CONFIG = yaml.safe_load((REPO / "_config.yml").read_text(encoding="utf-8"))
THEME = CONFIG["sphinx"]["config"]["html_theme_options"]


# ---------------------------------------------------------------- style sheets


def purged(css: str, *words: str) -> str:
    return light_page.purge(light_page._rules(css), set(words))


@pytest.mark.parametrize(
    ("css", "kept"),
    [
        (".a{color:red}", ".a{color:red}"),
        (".b{color:red}", ""),
        (".a,.b{color:red}", ".a{color:red}"),
        (".a .b{color:red}", ""),
        ("#b{color:red}", ""),
        ("p > em{color:red}", "p > em{color:red}"),
        (".a:not(.b){color:red}", ".a:not(.b){color:red}"),
        (".a:is(.b,.c){color:red}", ""),
        (".a:is(.b,p){color:red}", ".a:is(.b,p){color:red}"),
        ("[data-b]{color:red}", "[data-b]{color:red}"),
        ("@media print{.b{color:red}}", ""),
        ("@media print{.a{color:red}.b{color:red}}", "@media print{.a{color:red}}"),
        ("@supports (x:y){@media print{.a{c:d}}}", "@supports (x:y){@media print{.a{c:d}}}"),
        ('.a{b:url("data:image/svg+xml;x{y}")}', '.a{b:url("data:image/svg+xml;x{y}")}'),
    ],
)
def test_a_rule_is_kept_where_a_page_may_need_it(css, kept):
    assert purged(css, "a") == kept


def test_a_property_that_nothing_reads_is_dropped_with_those_that_only_it_read():
    css = ":root{--a:1;--b:var(--a);--c:var(--b);color:red}\n.x--y:hover{top:var(--a)}"
    assert light_page.drop_unread_properties(css, set()) == (
        ":root{--a:1;color:red}\n.x--y:hover{top:var(--a)}"
    )
    assert "--c" in light_page.drop_unread_properties(css, {"--c"})


def test_icons_are_the_private_characters_of_a_sheet():
    assert light_page.icons_of('.a:before{content:"\uf002"}.b{content:"→"}') == {0xF002}


# ---------------------------------------------------------------- pages

PAGE = """<head>
<meta name="viewport" content="one" /><meta name="viewport" content="two" />
<link rel="stylesheet" href="../_static/styles/a.css?v=1" />
<link rel="stylesheet" href="../_static/print.css" media="print" />
<link rel="stylesheet" href="../_static/b.css" />
<link rel="preload" as="script" href="../_static/c.js" />
<script src="../_static/c.js?v=2"></script>
<script data-x="y" src="../_static/d.js"></script>
<script defer src="../_static/scripts/fontawesome.js?digest=3"></script>
<script src="../searchindex.js"></script>
<script>DOCUMENTATION_OPTIONS.pagename = 'e';</script>
</head><pre>code</pre>"""


def test_a_page_has_one_sheet_for_the_screen_and_scripts_that_wait():
    page, sheets = light_page.trim(PAGE, search=False)
    assert sheets == ["styles/a.css", "b.css"]
    lines = [line.strip() for line in page.splitlines() if line.strip()]
    assert lines == [
        "<head>",
        '<meta name="viewport" content="one" />',
        '<link rel="stylesheet" href="../_static/book-bundle.css" />',
        '<link rel="stylesheet" href="../_static/print.css" media="print" />',
        '<script defer src="../_static/c.js?v=2"></script>',
        '<script defer src="../_static/d.js" data-x="y"></script>',
        "<script type=\"module\">DOCUMENTATION_OPTIONS.pagename = 'e';</script>",
        '</head><pre tabindex="0">code</pre>',
    ]


def test_the_search_page_keeps_its_index():
    page, _ = light_page.trim(PAGE, search=True)
    assert '<script defer src="../searchindex.js"></script>' in page


def test_what_is_no_page_stays_as_it_is():
    assert light_page.trim("<p>nothing linked</p>", search=False) == ("<p>nothing linked</p>", [])


def test_code_keeps_the_marks_that_have_a_colour_of_their_own():
    code = '<span class="n">a</span><span class="o">=</span><span class="w"> </span>'
    assert light_page.PLAIN.sub(r"\1", code) == 'a<span class="o">=</span> '


# ---------------------------------------------------------------- doors


@pytest.mark.parametrize(
    ("remote", "address"),
    [
        ("https://github.com/ann/her-book.git", "https://github.com/ann/her-book"),
        ("https://ann:secret@github.com/ann/her-book", "https://github.com/ann/her-book"),
        ("git@github.com:ann/her-book.git", "https://github.com/ann/her-book"),
        ("ssh://git@gitlab.com/group/sub/book.git", "https://gitlab.com/group/sub/book"),
        ("", "the default"),
        ("/srv/ann/book", "the default"),
        ("file:///srv/ann/book", "the default"),
        ("../book", "the default"),
    ],
)
def test_links_lead_to_the_repository_of_the_clone(monkeypatch, remote, address):
    monkeypatch.setattr(doors, "git", lambda *arguments: remote)
    assert doors.publishing_repository("the default", {}) == address


def test_a_workflow_says_which_repository_publishes_the_book(monkeypatch):
    monkeypatch.setattr(doors, "git", lambda *arguments: "https://github.com/ann/her-book")
    told = {"GITHUB_REPOSITORY": "bob/fork", "GITHUB_SERVER_URL": "https://github.com"}
    assert doors.publishing_repository("x", told) == "https://github.com/bob/fork"


def test_binder_and_colab_open_the_chapter_in_the_fork():
    options = {"repository_url": "https://github.com/bob/fork", "repository_branch": "next"}
    assert doors.links(options, "lazy") == {
        "binder": "https://mybinder.org/v2/gh/bob/fork/next?urlpath=lab/tree/book/lazy.ipynb",
        "colab": "https://colab.research.google.com/github/bob/fork/blob/next/book/lazy.ipynb",
    }
    elsewhere = doors.links({"repository_url": "https://example.org/b"}, "lazy")
    assert elsewhere == {
        "binder": "https://mybinder.org/v2/git/https%3A%2F%2Fexample.org%2Fb/main"
        "?urlpath=lab/tree/book/lazy.ipynb"
    }


# ---------------------------------------------------------------- the cell for Colab


def installing_cell(path: Path) -> str:
    return "".join(json.loads(path.read_text(encoding="utf-8"))["cells"][0]["source"])


def test_every_notebook_starts_with_the_same_hidden_cell_and_the_documented_default():
    (cell,) = {installing_cell(path) for path in NOTEBOOKS}
    assert f'"{THEME["repository_url"].removeprefix("https://github.com/")}"' in cell
    for path in NOTEBOOKS:
        metadata = json.loads(path.read_text(encoding="utf-8"))["cells"][0]["metadata"]
        assert metadata == {
            "cellView": "form",
            "jupyter": {"source_hidden": True},
            "tags": ["remove-cell"],
        }


@pytest.fixture
def commands(monkeypatch, tmp_path):
    """The commands that the cell runs, which here do nothing but make the folder of the clone."""
    ran = []

    def run(command, *, check):
        assert check
        ran.append([str(part) for part in command])
        if command[0] == "git":
            Path(command[-1]).mkdir()

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return ran


def test_elsewhere_than_in_colab_the_cell_does_nothing(commands):
    before = list(sys.path)
    exec(installing_cell(NOTEBOOKS[0]), {})
    assert (commands, sys.path) == ([], before)


@pytest.mark.parametrize(
    ("session", "place", "branch"),
    [
        ("fileId=https%3A//github.com/bob/fork/blob/next/book/lazy.ipynb", "bob/fork", "next"),
        ("fileId=1a2b3c", THEME["repository_url"].removeprefix("https://github.com/"), "main"),
    ],
)
def test_in_colab_the_cell_installs_the_repository_it_was_opened_from(
    commands, monkeypatch, tmp_path, session, place, branch
):
    answer = json.dumps([{"name": "lazy.ipynb", "path": session}]).encode()
    monkeypatch.setattr(urllib.request, "urlopen", lambda address: io.BytesIO(answer))
    monkeypatch.setitem(sys.modules, "google.colab", object())
    folder = str(tmp_path / "ntk-book")
    for _ in range(2):  # the second time there is nothing left to do
        exec(installing_cell(NOTEBOOKS[0]), {})
    clone, pip = commands
    assert clone == [
        *("git", "clone", "--quiet", "--depth=1", f"--branch={branch}"),
        *(f"https://github.com/{place}", folder),
    ]
    limits = Path(folder, "limits.txt")
    assert pip[1:] == ["-m", "pip", "install", "--quiet", "--constraint", str(limits), folder]
    assert {line.split("==")[0] for line in limits.read_text().splitlines()} >= {"jax", "numpy"}
    assert sys.path[0] == folder


def test_room_is_kept_for_what_stands_there_and_not_for_what_is_folded():
    def words(count: int) -> nodes.paragraph:
        return nodes.paragraph("", "word " * count)

    short, long = light_page.height(words(10)), light_page.height(words(1000))
    assert 0 < short < 60 < 1500 < long < 2500
    folded = nodes.container("", words(1000), classes=["admonition", "dropdown"])
    assert light_page.height(folded) < 100
    code = nodes.container("", nodes.literal_block("", "x = 1\n" * 30), classes=["cell_input"])
    assert light_page.height(nodes.container("", code, classes=["cell"])) > 600
    hidden = nodes.container("", code, classes=["cell", "tag_hide-input"])
    assert light_page.height(hidden) < 100
    picture = nodes.raw("", '<figure><svg viewBox="0 0 400 200"></svg></figure>', format="html")
    assert 256 < light_page.height(picture) < 600
