"""What a notebook runs on, and which kept runs are forgotten when something of it changes."""

import json
from pathlib import Path

import nbformat
import pytest
from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn
from nbformat.v4 import new_code_cell, new_notebook

from scripts import fresh

LIBRARY = {
    "__init__.py": "",
    "engine/__init__.py": "",
    "engine/angles.py": "",
    "kernels.py": "def f():\n    from ntk_lib.engine import angles\n",
    "lazy.py": "from .kernels import f\n",
    "other.py": "",
}
NOTEBOOKS = {
    "one": "%matplotlib inline\nfrom ntk_lib import lazy\n",
    "two": "import ntk_lib.other\n",
}


@pytest.fixture
def repository(monkeypatch, tmp_path) -> Path:
    """A small project with two notebooks, both of which were run and kept."""
    for name, text in LIBRARY.items():
        file = tmp_path / "ntk_lib" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    (tmp_path / "requirements.txt").write_text("")
    (tmp_path / "book").mkdir()
    doctrees = tmp_path / "_build" / ".doctrees"
    doctrees.mkdir(parents=True)
    monkeypatch.setattr(fresh, "REPO", tmp_path)
    monkeypatch.setattr(fresh, "CACHE", tmp_path / "_build" / "cache")
    monkeypatch.setattr(fresh, "KEYS", tmp_path / "_build" / "cache" / "keys.json")
    monkeypatch.setattr(fresh, "DOCTREES", doctrees)
    cache = get_cache(tmp_path / "_build" / "cache" / "notebooks")
    for name, code in NOTEBOOKS.items():
        path = tmp_path / "book" / f"{name}.ipynb"
        notebook = new_notebook(cells=[new_code_cell(code, execution_count=1)])
        nbformat.write(notebook, path)
    fresh.main()
    for name in NOTEBOOKS:
        path = tmp_path / "book" / f"{name}.ipynb"
        notebook = nbformat.read(path, as_version=4)
        cache.cache_notebook_bundle(CacheBundleIn(notebook, str(path)), check_validity=False)
        (doctrees / f"{name}.doctree").touch()
    cache.db.dispose()
    return tmp_path


def kept(repository: Path) -> set[str]:
    cache = get_cache(repository / "_build" / "cache" / "notebooks")
    names = {Path(record.uri).stem for record in cache.list_cache_records()}
    cache.db.dispose()
    pages = {path.stem for path in (repository / "_build" / ".doctrees").glob("*.doctree")}
    assert pages == names
    return names


def test_a_notebook_runs_on_what_it_imports_and_what_that_imports(repository):
    files = fresh.library(repository / "book" / "one.ipynb")
    names = {file.relative_to(repository / "ntk_lib").as_posix() for file in files}
    assert names == set(LIBRARY) - {"other.py"}


def test_a_name_at_the_top_of_the_library_counts_as_its_module(repository):
    file = repository / "script.py"
    file.write_text("from ntk_lib import flow_filter, __version__\n")
    assert fresh.imports_of(file) >= {"ntk_lib.lazy"}
    assert repository / "ntk_lib" / "lazy.py" in fresh.library(file)


def test_what_only_type_checkers_read_is_not_run(repository):
    file = repository / "script.py"
    file.write_text("if TYPE_CHECKING:\n    import ntk_lib.other\nelse:\n    import ntk_lib.lazy\n")
    assert fresh.imports_of(file) == {"ntk_lib.lazy"}


@pytest.mark.parametrize(
    ("changed", "left"),
    [
        (None, {"one", "two"}),
        ("ntk_lib/engine/angles.py", {"two"}),
        ("ntk_lib/other.py", {"one"}),
        ("requirements.txt", set()),
        ("book/data/mnist.npz", set()),
        ("ntk_lib/nowhere_imported.py", {"one", "two"}),
    ],
)
def test_only_what_ran_on_what_has_changed_is_forgotten(repository, changed, left):
    if changed:
        (repository / changed).parent.mkdir(exist_ok=True)
        (repository / changed).write_text("# changed\n")
    fresh.main()
    assert kept(repository) == left
    assert set(json.loads(fresh.KEYS.read_text())) == set(NOTEBOOKS)


def test_what_was_kept_before_there_were_keys_is_forgotten(repository):
    fresh.KEYS.unlink()
    fresh.main()
    assert kept(repository) == set()
