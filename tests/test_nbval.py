"""``book/conftest.py``: which prints of a notebook pass for the stored ones."""

import importlib.util
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


def test_nbval_compares_by_this_rule(tmp_path):
    shutil.copy(CONFTEST, tmp_path)
    lines = {"print('slope', 0.52)": "slope 0.51\n", "print('share', 0.52)": "share 0.54\n"}
    cells = [
        new_code_cell(
            line, outputs=[new_output("stream", name="stdout", text=stored)], execution_count=1
        )
        for line, stored in lines.items()
    ]
    for stored in ("0.51", "0.5"):
        result = new_output("execute_result", {"text/plain": stored}, execution_count=1)
        cells.append(new_code_cell("0.52", outputs=[result], execution_count=1))
    nbformat.write(new_notebook(cells=cells), tmp_path / "book.ipynb")
    command = [sys.executable, "-m", "pytest", "--nbval", "-p", "no:cacheprovider", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert "2 failed, 2 passed" in done.stdout
    failed = [cell for cell in range(4) if f"FAILED book.ipynb::Cell {cell}" in done.stdout]
    assert failed == [1, 3]
