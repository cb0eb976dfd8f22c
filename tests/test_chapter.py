"""The bones of a chapter hold: they have the form that is asked for, they run, they are refused."""

import importlib.util
import re
import shutil
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest
import yaml

from scripts import chapter, lint, notebooks

REPO = Path(__file__).parents[1]
TITLE = "What is a chapter before it has a text?"


@pytest.fixture
def repository(tmp_path) -> Path:
    """As much of the book as a new chapter touches."""
    for folder in ("book", "ntk_lib", "tests"):
        (tmp_path / folder).mkdir()
    for name in ("_toc.yml", "book/intro.ipynb", "book/kernels.ipynb"):
        shutil.copy(REPO / name, tmp_path / name)
    return tmp_path


def module(path: Path, name: str):
    spec = importlib.util.spec_from_file_location(name, path)
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def test_the_book_knows_the_new_chapter_and_is_as_it_was_besides(repository):
    chapter.write("bones", TITLE, repository)
    before, after = (
        yaml.safe_load((folder / "_toc.yml").read_text("utf-8")) for folder in (REPO, repository)
    )
    *_, part, appendices = before["parts"]
    part["chapters"].append({"file": "bones"})
    assert after == before
    assert after["parts"][-1] == appendices
    old, new = ((folder / "book/intro.ipynb").read_text("utf-8") for folder in (REPO, repository))
    added = [line for line in new.splitlines() if line not in old.splitlines()]
    assert len(added) == 1
    assert f"| [{TITLE}](bones.ipynb) |" in added[0]


def test_the_bones_have_the_form_of_a_chapter(repository):
    chapter.write("bones", TITLE, repository)
    path = repository / "book" / "bones.ipynb"
    first = nbformat.read(repository / "book" / "kernels.ipynb", as_version=4).cells[0]
    first.pop("outputs", None)
    left = lint.notebook_findings(path, first)
    assert left
    assert [line for line in left if "was not run" not in line] == []
    notebook = nbformat.read(path, as_version=4)
    text = "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    labels = re.findall(r"\{exercise-start\}[^\n]*\n:label: (\S+)", text)
    assert len(labels) == 4
    assert re.findall(r"\{solution-start\} (\S+)", text) == labels
    assert "{" not in re.sub(r"\$[^$]*\$|\{[a-z-]+(?::t)?\}", "", text)  # nothing left to fill in
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)


def test_the_bones_run(repository, monkeypatch):
    chapter.write("bones", TITLE, repository)
    name = "ntk_lib.bones"
    monkeypatch.setitem(sys.modules, name, module(repository / "ntk_lib" / "bones.py", name))
    module(repository / "tests" / "test_bones.py", "bones").test_double_is_the_sum_of_two("float32")
    cells = notebooks.code(nbformat.read(repository / "book" / "bones.ipynb", as_version=4))
    monkeypatch.setattr("jax.config.update", lambda *setting: None)
    names: dict = {}
    for cell in cells:
        exec(cell.source, names)
    assert names["first_figure"].explorer.texts[0]
    np.testing.assert_allclose(names["double"](np.ones(2)), 2)


def test_a_module_that_is_there_stays_as_it_is(repository):
    (repository / "ntk_lib" / "scale.py").write_text("# here before\n")
    written = {path.name for path in chapter.write("scale", TITLE, repository)}
    assert (repository / "ntk_lib" / "scale.py").read_text() == "# here before\n"
    assert written == {"scale.ipynb", "test_scale.py", "_toc.yml", "intro.ipynb"}


@pytest.mark.parametrize(
    ("name", "title", "says"),
    [
        ("", TITLE, "NAME needs small letters"),
        ("Bones", TITLE, "NAME needs small letters"),
        ("../bones", TITLE, "NAME needs small letters"),
        ("bones", " ", "TITLE needs the title"),
        ("kernels", TITLE, "NAME needs a chapter that is not there yet"),
    ],
)
def test_what_names_no_new_chapter_is_refused_and_nothing_is_written(
    repository, monkeypatch, name, title, says
):
    before = sorted(repository.rglob("*"))
    monkeypatch.setattr(chapter, "write", lambda n, t, write=chapter.write: write(n, t, repository))
    monkeypatch.setattr(chapter.sys, "argv", ["chapter", name, title])
    with pytest.raises(SystemExit, match=says):
        chapter.main()
    assert sorted(repository.rglob("*")) == before
