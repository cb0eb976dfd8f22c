"""Each slip in the form of a notebook or a page is found, with its place and what to do."""

import re

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from scripts import lint, notebooks

FIRST = new_code_cell("# the first cell", execution_count=1, metadata={"tags": ["remove-cell"]})
DRAWN = "import matplotlib.pyplot as plt\nplt.plot([1, 2])\n"
ALT = {"mystnb": {"image": {"alt": "a line that rises"}}}


def explorer(body: str, last: str) -> str:
    return f"@explore(width=[1, 2])\ndef figure(width):\n    {body}\n    return {last}\n"


@pytest.fixture
def findings(tmp_path):
    """What is found in a notebook of these cells, after ``change`` was done to it."""

    def look(*cells, change=lambda notebook: None) -> list[str]:
        for number, cell in enumerate(cells, 2):
            if cell.cell_type == "code":
                cell.execution_count = number
        notebook = new_notebook(cells=[FIRST.copy(), *cells])
        notebook.metadata["ntk"] = {"ran": notebooks.digest(notebook)}
        notebooks.normalise(notebook)
        change(notebook)
        path = tmp_path / "chapter.ipynb"
        path.write_text(notebooks.written(notebook), encoding="utf-8")
        return lint.notebook_findings(path, FIRST)

    return look


@pytest.mark.parametrize(
    "cell",
    [
        new_markdown_cell("![a line that rises](line.png)"),
        new_markdown_cell('<img src="line.png" alt="a line that rises">'),
        new_code_cell(DRAWN, metadata=ALT),
        new_code_cell(DRAWN + "plt.close()"),
        new_code_cell(explorer('"""What is seen."""', "fig")),
        new_code_cell(explorer("pass", '(fig, "what is seen")')),
        new_code_cell("%matplotlib inline\n1 + 1"),
        new_code_cell("\n".join("x = 1" for _ in range(30))),
    ],
)
def test_what_is_well_is_not_found(findings, cell):
    assert findings(cell) == []


@pytest.mark.parametrize(
    ("cell", "says"),
    [
        (
            new_markdown_cell("One.\n\n![](line.png)"),
            r"cell 2 \(One\.\): picture without alt.* :alt:",
        ),
        (new_markdown_cell('<img src="line.png" alt="">'), "picture without alternative text"),
        (new_markdown_cell("```{figure} line.png\n:width: 3\n```"), "without alternative text"),
        (new_code_cell(DRAWN), r"cell 2 .*: picture without alternative text: .*\"mystnb\""),
        (new_code_cell("fig = draw()\nfig"), "picture without alternative text"),
        (new_code_cell(explorer("pass", "fig")), "figure draws without a text: return"),
        (new_code_cell("\n".join("x = 1" for _ in range(31))), "31 lines of code, at most 30"),
    ],
)
def test_a_slip_in_a_cell_is_found_with_its_place_and_what_to_do(findings, cell, says):
    (found,) = findings(cell)
    assert re.search(says, found)


def metadata(notebook):
    notebook.metadata["toc-showcode"] = True


def first(notebook):
    notebook.cells[0].source += "\nprint()"
    notebook.metadata.ntk.ran = notebooks.digest(notebook)


def edited(notebook):
    notebook.cells[1].source = "2 + 2"


def not_run(notebook):
    notebook.cells[1].execution_count = None


def drawn(notebook):
    data = {"text/plain": "Figure", "image/png": "AAAA"}
    notebook.cells[1].outputs = [new_output("display_data", data)]


def failed(notebook):
    error = {"ename": "ValueError", "evalue": "x", "traceback": []}
    notebook.cells[1].outputs = [new_output("error", **error)]


def emptied(notebook):
    notebook.cells[1].source = " "
    notebook.metadata.ntk.ran = notebooks.digest(notebook)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (metadata, "metadata or layout is not in the stored form: `make tidy`"),
        (first, "another first cell: copy that of book/kernels.ipynb"),
        (edited, "code has changed since it was run: `make notebooks`"),
        (not_run, "cell 2 (1 + 1) was not run: `make notebooks`"),
        (drawn, "cell 2 (1 + 1) stores image/png: `make tidy`"),
        (failed, "cell 2 (1 + 1) stores an error: mend the cell"),
        (emptied, "cell 2 (empty) is empty: delete it"),
    ],
)
def test_a_notebook_in_another_form_is_found_with_what_to_do(findings, change, says):
    found = findings(new_code_cell("1 + 1"), change=change)
    assert len(found) == 1
    assert found[0].startswith(says)


# ---------------------------------------------------------------- run and store


@pytest.fixture
def stored(tmp_path, monkeypatch):
    """Two notebooks in their stored form, and the names of those that are run."""
    ran = []

    def run(path, notebook):
        ran.append(path.stem)
        notebook.metadata["ntk"] = {"ran": notebooks.digest(notebook)}

    monkeypatch.setattr(notebooks, "run", run)
    paths = []
    for name in ("one", "two"):
        cells = [new_code_cell("1 + 1", execution_count=1), new_markdown_cell("A comma, say")]
        notebook = new_notebook(cells=cells)
        notebook.metadata["ntk"] = {"ran": notebooks.digest(notebook)}
        notebooks.normalise(notebook)
        paths.append(tmp_path / f"{name}.ipynb")
        paths[-1].write_text(notebooks.written(notebook), encoding="utf-8")
    return paths, ran


def change_in(path, cell: int, source: str) -> None:
    """As JupyterLab stores it: another layout, and metadata of its own."""
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[cell].source = source
    notebook.metadata["toc"] = {"x": 1}
    path.write_text(nbformat.writes(notebook, indent=2), encoding="utf-8")


def store(monkeypatch, how: str, paths) -> int:
    monkeypatch.setattr(notebooks.sys, "argv", ["notebooks", how, *map(str, paths)])
    return notebooks.main()


@pytest.mark.parametrize("how", ["--tidy", "--changed"])
def test_a_comma_in_the_text_runs_nothing(stored, monkeypatch, how):
    paths, ran = stored
    change_in(paths[0], 1, "A comma; say")
    assert notebooks.problems(paths[0]) != []
    assert store(monkeypatch, how, paths) == 0
    assert ran == []
    assert [notebooks.problems(path) for path in paths] == [[], []]
    assert "A comma; say" in paths[0].read_text()


def test_only_a_notebook_whose_code_has_changed_is_run(stored, monkeypatch):
    paths, ran = stored
    change_in(paths[1], 0, "1 + 2")
    assert store(monkeypatch, "--changed", paths) == 0
    assert ran == ["two"]
    assert [notebooks.problems(path) for path in paths] == [[], []]


def test_a_tidy_says_that_changed_code_was_not_run(stored, monkeypatch, capsys):
    paths, ran = stored
    change_in(paths[1], 0, "1 + 2")
    assert store(monkeypatch, "--tidy", paths) == 1
    assert ran == []
    assert "two.ipynb: code has changed since it was run" in capsys.readouterr().out


def test_a_notebook_that_is_asked_for_is_run(stored, monkeypatch):
    paths, ran = stored
    assert store(monkeypatch, "--run", paths[:1]) == 0
    assert ran == ["one"]


# ---------------------------------------------------------------- typical draws

DRAW = "def networks(key):\n    return jax.random.normal(key, (3,))\n"
SHOWN = explorer("x = networks(jax.random.key(0))", '(fig, "what is seen")')
GIVEN = "numbers = networks(first)\n"
READ = explorer("x = numbers", '(fig, "what is seen")')


@pytest.mark.parametrize("last", [SHOWN, GIVEN + READ])
def test_a_figure_of_random_draws_needs_to_be_held_against_others(findings, last):
    (found,) = findings(new_code_cell(DRAW), new_code_cell(last))
    assert found.startswith("figure shows random draws: compare")
    claim = new_code_cell('typical("figure: its spread", spread, spreads)')
    assert findings(new_code_cell(DRAW), new_code_cell(last), claim) == []
    other = new_code_cell('typical("figure_2: its spread", spread, spreads)')
    assert len(findings(new_code_cell(DRAW), new_code_cell(last), other)) == 1


def test_a_name_of_its_own_is_not_the_notebooks(findings):
    code = explorer("numbers = [n for n in range(width)]", '(fig, "what is seen")')
    assert findings(new_code_cell(DRAW + GIVEN), new_code_cell(code)) == []


def test_a_settled_figure_has_a_reason_and_is_there():
    for chapter, figures in lint.SETTLED.items():
        notebook = nbformat.read(lint.BOOK / f"{chapter}.ipynb", as_version=4)
        cells = [c for c in notebook.cells if c.cell_type == "code"]
        there = lint.random_figures([lint.parsed(cell.source) for cell in cells[1:]])
        assert set(figures) <= set(there)
        assert all(figures.values())
