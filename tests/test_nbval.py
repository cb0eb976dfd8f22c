"""``book/conftest.py``: which prints of a notebook pass for the stored ones."""

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

CONFTEST = Path(__file__).parents[1] / "book" / "conftest.py"


@pytest.fixture(scope="module")
def same_print():
    spec = importlib.util.spec_from_file_location("book_conftest", CONFTEST)
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        from nbval.plugin import IPyNbCell

        patch.setattr(IPyNbCell, "compare_outputs", IPyNbCell.compare_outputs)
        spec.loader.exec_module(module)
    return module.same_print


SAME = [
    ("slope -0.51 ± 0.02", "slope -0.52 ± 0.02"),
    ("slope 0.9999", "slope 1"),  # as %g prints them
    ("1e-05 of 3", "9.9e-06 of 3"),
    ("[ 0.   -1.5]", "[-0.1  -1.5]"),
    ("drift × width: [78. 81.]", "drift × width: [78. 80.]"),
    ("-0.00", "0.00"),
]
DIFFERENT = [
    ("slope -0.51", "slope -0.53"),
    ("slope 0.51", "slope -0.51"),
    ("4 of 16", "5 of 16"),
    ("1", "0.98"),
    ("1e-05", "8e-06"),
    ("0.5", "0.57"),
    ("width 8: 0.51", "height 8: 0.51"),
    ("0.51 0.2", "0.51"),
    ("x1 0.5", "x2 0.5"),
    ("nan", "0.1"),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_numbers_may_differ_by_one_in_their_last_digit(one, other, same_print):
    assert same_print(one, other)
    assert same_print(other, one)


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_nothing_else_may_differ(one, other, same_print):
    assert not same_print(one, other)
    assert not same_print(other, one)


@pytest.fixture(scope="module")
def log(tmp_path_factory) -> str:
    """What nbval says of four cells, two of which print something else than is stored."""
    folder = tmp_path_factory.mktemp("book")
    shutil.copy(CONFTEST, folder)
    lines = {"print('slope', 0.52)": "slope 0.51\n", "print('share', 0.52)": "share 0.54\n"}
    cells = [
        new_code_cell(
            line, outputs=[new_output("stream", name="stdout", text=stored)], execution_count=n
        )
        for n, (line, stored) in enumerate(lines.items(), 1)
    ]
    for n, stored in enumerate(("0.51", "0.5"), 3):
        result = new_output("execute_result", {"text/plain": stored}, execution_count=n)
        cells.append(new_code_cell("0.52", outputs=[result], execution_count=n))
    nbformat.write(new_notebook(cells=cells), folder / "lazy.ipynb")
    command = [sys.executable, "-m", "pytest", "--nbval", "-p", "no:cacheprovider", folder]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder).stdout


def test_nbval_compares_by_this_rule(log):
    assert "2 failed, 2 passed" in log
    assert [cell for cell in range(4) if f"FAILED lazy.ipynb::Cell {cell}" in log] == [1, 3]


def test_what_differs_is_said_with_its_place_and_what_to_do(log):
    found = re.search(r"book/lazy\.ipynb, the cell .*? \[2\]\n(.*?)\n *If what", log, re.S)[1]
    assert re.search(r"stored: share 0\.54\s+now: +share 0\.52", found)
    assert "`make notebooks NOTEBOOKS=book/lazy.ipynb` stores it." in log
