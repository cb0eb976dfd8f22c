"""What the build does to pages, links and style sheets, and the cell that installs in Colab."""

import importlib.util
import io
import json
import re
import struct
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
import yaml
from docutils import nodes
from fontTools.ttLib import TTFont
from sphinx.errors import ExtensionError

REPO = Path(__file__).parents[1]
sys.path.insert(0, str(REPO / "book" / "extension"))

import doors  # noqa: E402
import front  # noqa: E402
import light_page  # noqa: E402
import places  # noqa: E402
import reference  # noqa: E402

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


@pytest.mark.parametrize(
    "how", ['"../basic.css"', "'../basic.css'", "url(../basic.css)", 'url( "../basic.css" )']
)
def test_a_sheet_brings_the_sheets_that_it_imports(tmp_path, how):
    (tmp_path / "styles").mkdir()
    (tmp_path / "basic.css").write_text("b{background:url(file.png)}")
    (tmp_path / "styles" / "theme.css").write_text(f"@import {how};\na{{b:url('../x.png')}}")
    read = light_page.read_sheet(tmp_path, "styles/theme.css")
    assert read == "b{background:url(file.png)}\na{b:url(x.png)}"


@pytest.mark.parametrize("how", ['"a.css" print', "url(a.css) layer(x)", "a b"])
def test_an_import_that_is_not_understood_is_not_lost_in_silence(tmp_path, how):
    (tmp_path / "theme.css").write_text(f"@import {how};\na{{b:c}}")
    with pytest.raises(ExtensionError, match=r"theme\.css imports"):
        light_page.read_sheet(tmp_path, "theme.css")


def test_without_scripts_the_rules_of_a_theme_are_those_of_the_system():
    css = 'a{b:c}html[data-theme="dark"],x{d:e}@media print{html[data-theme=light] p{f:g}}'
    css += 'html[data-theme="dark"] .highlight .k{h:i}'
    assert light_page.without_scripts(css) == (
        "@media (scripting:none) and (prefers-color-scheme:light)"
        '{@media print{html[data-theme="auto"] p{f:g}}}'
        "@media (scripting:none) and (prefers-color-scheme:dark)"
        '{html[data-theme="auto"]{d:e}}'
    )


def test_icons_are_the_private_characters_of_a_sheet():
    assert light_page.icons_of('.a:before{content:"\uf002"}.b{content:"→"}') == {0xF002}


def test_the_font_of_the_icons_is_small_and_says_what_it_is_under():
    theme = Path(importlib.util.find_spec("pydata_sphinx_theme").origin).parent
    whole = theme / "theme" / "pydata_sphinx_theme" / "static" / light_page.ICON_FONT
    made = light_page.icon_font(whole, {0xF002, 0xF0C9})
    assert len(made) < 3000
    font = TTFont(io.BytesIO(made))
    assert set(font.getBestCmap()) == {0xF002, 0xF0C9}
    said = {name.nameID: str(name) for name in font["name"].names}
    assert "Fonticons" in said[0]
    assert "SIL Open Font License" in said[13]
    reserved = "Font Awesome"  # of the whole font alone, says its licence
    assert [said[number] for number in (1, 4, 6) if reserved in said[number]] == []
    licence = (REPO / "book" / "assets" / "fontawesome" / "LICENSE.txt").read_text("utf-8")
    assert f'Reserved Font Name: "{reserved}"' in licence


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


def test_a_page_says_the_books_name_once_and_nothing_to_thebe():
    dead = '<script type="text/x-thebe-config">{\n}</script>\n<script>kernelName = "x"</script>\n'
    page = PAGE.replace("<head>", "<head><title>The Book &#8212; The Book</title>") + dead
    trimmed, _ = light_page.trim(page, search=False)
    assert "<title>The Book</title>" in trimmed
    assert trimmed.endswith("</pre>")
    other = "<title>A &#8212; The Book</title>"
    assert other in light_page.trim(PAGE + other, search=False)[0]


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


@pytest.mark.parametrize(
    ("repository", "address"),
    [
        ("https://github.com/bob/fork", "https://github.com/bob/fork/blob/next/book/lazy.ipynb"),
        ("https://gitlab.com/g/s/b", "https://gitlab.com/g/s/b/-/blob/next/book/lazy.ipynb"),
    ],
)
def test_figures_lead_to_their_notebook_in_the_repository(repository, address):
    options = {"repository_url": repository, "repository_branch": "next"}
    assert doors.source(options, "lazy") == address


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (3.0, "less than a minute"),
        (49.9, "less than a minute"),
        (62.0, "about a minute"),
        (322.0, "about 5 minutes"),
    ],
)
def test_how_long_a_chapter_runs_is_said_in_minutes(seconds, said):
    assert doors.in_minutes(seconds) == said


# ---------------------------------------------------------------- the front


@pytest.mark.parametrize(
    ("environment", "address"),
    [
        ({}, ""),
        ({"GITHUB_REPOSITORY": "Ann/Her-Book"}, "https://ann.github.io/Her-Book/"),
        ({"GITHUB_REPOSITORY": "Ann/ann.github.io"}, "https://ann.github.io/"),
        (
            {"GITHUB_REPOSITORY": "ann/book", "GITHUB_SERVER_URL": "https://git.example.org"},
            "",
        ),
        (
            {"GITHUB_REPOSITORY": "ann/book", "BOOK_URL": "https://ntk.example.org"},
            "https://ntk.example.org/",
        ),
    ],
)
def test_a_workflow_knows_where_the_pages_will_stand(environment, address):
    assert front.book_address(environment) == address


def test_a_page_names_its_address_only_where_that_is_known():
    unknown = front.tags('A "B" < C', "text", "x.html", "")
    assert '<meta property="og:title" content="A &quot;B&quot; &lt; C" />' in unknown
    assert "og:url" not in unknown
    assert "og:image" not in unknown
    known = front.tags("A", "text", "https://a.org/x.html", "https://a.org/")
    assert '<meta property="og:url" content="https://a.org/x.html" />' in known
    assert f'content="https://a.org/_static/{front.CARD}"' in known


def test_the_picture_of_a_preview_has_the_size_that_previews_want():
    picture = (REPO / "book" / "assets" / front.CARD).read_bytes()
    assert picture[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", picture[16:24]) == (1200, 630)


def test_the_entry_to_cite_says_what_the_citation_file_says():
    entry = front.bibtex("https://a.org/")
    known = yaml.safe_load((REPO / "CITATION.cff").read_text(encoding="utf-8"))
    for value in (known["title"], known["version"], known["authors"][0]["name"], "https://a.org/"):
        assert f"{value}}}" in entry
    assert f"year   = {{{known['date-released'].year}}}" in entry
    assert entry.count("{") == entry.count("}")


# ---------------------------------------------------------------- the reference of the library

ENTRIES = [entry for group in reference.plan() for entry in group]
NAMED = {entry.anchor: entry for entry in ENTRIES}
PEOPLE = [  # the modules that people import; the rest of the engine and the page wing serve these
    *(f"ntk_lib.{path.stem}" for path in (REPO / "ntk_lib").glob("[!_]*.py")),
    *("ntk_lib.engine.activations", "ntk_lib.engine.tangent_kernels"),
]


def test_every_public_name_has_one_entry_or_is_left_out_by_name():
    text = (REPO / "book" / "reference.md").read_text(encoding="utf-8")
    without = {name for group in reference.groups(text) for name in group.without}
    public = {f"{module}.{name}" for module in PEOPLE for name in reference.public(module)}
    assert len(NAMED) == len(ENTRIES)
    assert {name for name in public - set(NAMED) if name.rsplit(".", 1)[1] not in without} == set()
    assert without <= {name.rsplit(".", 1)[1] for name in public - set(NAMED)}
    assert set(reference.handed_on().values()) <= set(NAMED)


def test_a_chapter_to_come_is_in_the_reference_by_itself():
    page = "```{library}\nothers\n```\n```{library}\n:without: train\nkernels rbf\n```\n"
    first, second = reference.groups(page)
    found = {entry.anchor for entry in reference.entries(first, [first, second])}
    assert "ntk_lib.limiting_ntk.ntk" in found
    assert "ntk_lib.lazy.train" not in found
    assert {name for name in found if name.startswith("ntk_lib.kernels.")} == set()
    assert [entry.anchor for entry in reference.entries(second, [first, second])] == [
        "ntk_lib.kernels.rbf"
    ]


def test_a_class_is_shown_as_it_is_made_and_its_methods_as_they_are_called():
    model = NAMED["ntk_lib.estimators.NTKRegressor"]
    assert model.signature.startswith("from ntk_lib import NTKRegressor\n\nNTKRegressor(\n")
    assert "    depth: int = 3,\n    *,\n" in model.signature
    assert model.signature.endswith("    normalize_y: bool = False,\n)")
    shown = [call for call, _ in model.methods]
    assert shown[:2] == ["fit(X, y)", "predict(X, return_std=False, return_cov=False)"]
    assert "self" not in "".join(shown)
    networks = NAMED["ntk_lib.prediction.Trained"]
    assert networks.signature.endswith("    noise: float\n    by: str")
    assert [call for call, _ in NAMED["ntk_lib.prediction.Prediction"].methods] == ["std"]


@pytest.mark.parametrize("entry", [e for e in ENTRIES if e.is_class], ids=lambda e: e.anchor)
def test_a_method_says_what_it_gives(entry):
    for shown, text in entry.methods:  # the name of a property may say it all
        assert missing(text, raises=False) == [] or "(" not in shown


def missing(docstring: str, *, raises: bool) -> list[str]:
    """The parts that an entry would lack."""
    said = reference.parts(docstring)
    found = [] if said.summary.endswith((".", ":")) else ["a first sentence"]
    elsewhere = re.search(r"\braises what|\berrors as for", docstring)  # in a sentence on more
    return [*found, *(["what it raises"] if raises and not said.raises and not elsewhere else [])]


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.anchor)
def test_an_entry_has_its_parts(entry):
    docstring = reference.ast.get_docstring(entry.node) or ""
    assert missing(docstring, raises=not entry.is_class) == []
    assert entry.signature.startswith("from ntk_lib")
    assert entry.chapter is None or (REPO / "book" / f"{entry.chapter}.ipynb").exists()


@pytest.mark.parametrize(
    ("docstring", "lacks"),
    [
        ("Says it. \n\nRaises ``ValueError``.", []),
        ("Says it.\n\nText.\nRaises nothing of its own.\nSource: a paper.", []),
        ("Says it.\n\nTakes and raises what ``ntk`` does.", []),
        ("Says it.", ["what it raises"]),
        ("No sentence\n\nRaises ``ValueError``.", ["a first sentence"]),
        ("", ["a first sentence", "what it raises"]),
    ],
)
def test_a_docstring_without_its_parts_is_found(docstring, lacks):
    assert missing(docstring, raises=True) == lacks


def test_a_docstring_is_taken_apart():
    text = "It is.\n\nMore of it. Raises ``E`` for x,\nand y.\nSource: A 2018.\n\nAnd more."
    assert reference.parts(text) == (
        "It is.", "More of it.\n\nAnd more.", "``E`` for x, and y.", "A 2018."
    )  # fmt: skip


def test_a_signature_is_shown_as_it_is_written():
    shown = NAMED["ntk_lib.lazy.relative_curvature"].signature
    assert shown.splitlines() == [
        "from ntk_lib.lazy import relative_curvature",
        "",
        "relative_curvature(",
        "    output: Callable[[Any], Array],",
        "    params: PyTree,",
        "    residual: float,",
        ') -> Float[Array, ""]',
    ]


CODE = """\
import ntk_lib.lazy as lazy_module
from ntk_lib.limiting_ntk import ntk as kernel, mlp_ntk
from ntk_lib import scale

theta = kernel(x, depth=3) + lazy_module.train(x, mlp_ntk=2)
"é", scale.flow(kernel)


def f(mlp_ntk, kernel=kernel):
    train = scale
    return mlp_ntk(train.flow), kernel, lambda ntk: ntk
"""


def test_a_name_in_code_is_what_the_notebook_imported():
    found = [(line, word, anchor) for line, _, word, anchor in reference.Names().cell(CODE)]
    kernel = "ntk_lib.limiting_ntk.ntk"
    assert found == [
        (2, "ntk", kernel),
        (2, "mlp_ntk", "ntk_lib.limiting_ntk.mlp_ntk"),
        (5, "kernel", kernel),
        (5, "train", "ntk_lib.lazy.train"),
        (6, "flow", "ntk_lib.scale.flow"),
        (6, "kernel", kernel),
        (9, "kernel", kernel),
    ]


def test_a_name_that_a_cell_binds_anew_is_no_longer_the_librarys():
    names = reference.Names()
    assert len(names.cell("from ntk_lib.limiting_ntk import ntk\nntk")) == 2
    assert names.cell("def ntk(x):\n    return x") == []
    assert names.cell("ntk(3)") == []
    assert names.cell("%matplotlib inline") == []


def test_links_in_code_change_nothing_but_their_words_and_the_keyboard_passes_them_by():
    code = (
        '<span class="s2">&quot;é&quot;</span><span class="p">,</span> <span>ntk</span>(<b>ntk</b>)'
    )
    places = [(1, 5, "ntk", "a.ntk"), (1, 9, "ntk", "b.ntk")]
    made = reference.linked(code, places, {"a.ntk": "r.html#a.ntk"})
    link = '<a class="library-name" tabindex="-1" href="r.html#a.ntk">ntk</a>'
    assert made == code.replace("<span>ntk</span>", f"<span>{link}</span>")


def test_every_chapter_links_its_code_to_entries_that_are_there():
    for path in NOTEBOOKS:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        names = reference.Names()
        code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
        linked = {place[3] for each in code for place in names.cell(each)}
        assert linked & set(NAMED), path.stem


# ---------------------------------------------------------------- warnings of the build


@pytest.mark.parametrize(
    ("location", "said"),
    [
        ("book/intro.ipynb:50041", "book/intro.ipynb, cell 5, line 41"),
        ("book/intro.ipynb:120003", "book/intro.ipynb, cell 12, line 3"),
        ("book/intro.ip.rst:50041", "book/intro.ipynb, cell 5, line 41"),
        ("book/intro.ipynb:7", "book/intro.ipynb:7"),
        ("book/glossary.md:50041", "book/glossary.md:50041"),
        ("book/intro.ipynb", "book/intro.ipynb"),
    ],
)
def test_a_warning_says_in_which_cell(location, said):
    assert places.in_words(location) == said


# ---------------------------------------------------------------- the cell for Colab


def installing_cell(path: Path) -> str:
    return "".join(json.loads(path.read_text(encoding="utf-8"))["cells"][0]["source"])


def test_the_first_cell_is_hidden_and_knows_the_documented_default():
    # that all notebooks start with it, make lint sees
    first = json.loads(NOTEBOOKS[0].read_text(encoding="utf-8"))["cells"][0]
    assert f'"{THEME["repository_url"].removeprefix("https://github.com/")}"' in "".join(
        first["source"]
    )
    assert first["metadata"] == {
        "cellView": "form",
        "jupyter": {"source_hidden": True},
        "tags": ["remove-cell"],
    }


class Machine:
    """Where the cell runs: its commands do nothing but what git does to the folder of the clone."""

    def __init__(self) -> None:
        self.ran: list[list[str]] = []
        self.interrupted: set[str] = set()  # programs that the reader stops

    def run(self, command, *, check):
        assert check
        self.ran.append([str(part) for part in command])
        program = "git" if command[0] == "git" else "pip"
        if program == "git":
            Path(command[-1]).mkdir()  # as git does, an error where it is there already
        if program in self.interrupted:
            raise KeyboardInterrupt


@pytest.fixture
def machine(monkeypatch, tmp_path):
    made = Machine()
    monkeypatch.setattr(subprocess, "run", made.run)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return made


@pytest.fixture
def colab(machine, monkeypatch):
    """A machine of Colab, in which this notebook was opened from a fork."""
    opened = "fileId=https%3A//github.com/bob/fork/blob/next/book/lazy.ipynb"
    answer = json.dumps([{"name": "lazy.ipynb", "path": opened}]).encode()
    monkeypatch.setattr(urllib.request, "urlopen", lambda address: io.BytesIO(answer))
    monkeypatch.setitem(sys.modules, "google.colab", object())
    return machine


def test_elsewhere_than_in_colab_the_cell_does_nothing(machine):
    before = list(sys.path)
    exec(installing_cell(NOTEBOOKS[0]), {})
    assert (machine.ran, sys.path) == ([], before)


def test_in_colab_the_cell_installs_the_repository_it_was_opened_from(colab, tmp_path):
    folder = str(tmp_path / "ntk-book")
    for _ in range(2):  # the second time there is nothing left to do
        exec(installing_cell(NOTEBOOKS[0]), {})
    clone, pip = colab.ran
    assert clone == [
        *("git", "clone", "--quiet", "--depth=1", "--branch=next"),
        *("https://github.com/bob/fork", folder),
    ]
    limits = Path(folder, "limits.txt")
    assert pip[1:-1] == ["-m", "pip", "install", "-q", f"--constraint={limits}"]
    assert pip[-1] == f"{folder}[figures,tables,training]"
    assert {line.split("==")[0] for line in limits.read_text().splitlines()} >= {"jax", "numpy"}
    assert sys.path[0] == folder


def test_a_notebook_from_elsewhere_than_a_repository_installs_the_documented_one(
    colab, monkeypatch
):
    answer = b'[{"name": "lazy.ipynb", "path": "fileId=1a2b3c"}]'
    monkeypatch.setattr(urllib.request, "urlopen", lambda address: io.BytesIO(answer))
    exec(installing_cell(NOTEBOOKS[0]), {})
    assert colab.ran[0][4:6] == ["--branch=main", THEME["repository_url"]]


@pytest.mark.parametrize("program", ["git", "pip"])
def test_the_cell_can_be_repeated_wherever_it_was_interrupted(colab, program):
    colab.interrupted = {program}
    with pytest.raises(KeyboardInterrupt):
        exec(installing_cell(NOTEBOOKS[0]), {})
    colab.interrupted, colab.ran = set(), []
    exec(installing_cell(NOTEBOOKS[0]), {})
    assert [command[0] == "git" for command in colab.ran] == [True, False]


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
