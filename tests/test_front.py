"""What ``import ntk_lib`` gives: the names at the top, found late and never hidden by a module."""

import ast
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import ntk_lib

EVERY = sorted(path.stem for path in Path(ntk_lib.__file__).parent.glob("[!_]*.py"))


def output_of(lines):
    """What a fresh Python prints."""
    command = [sys.executable, "-W", "error", "-c", lines]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize("name", ntk_lib.__all__)
def test_a_name_at_the_top_is_the_modules_own_object(name):
    home = importlib.import_module(f"ntk_lib.{ntk_lib.HOME[name]}")
    assert getattr(ntk_lib, name) is getattr(home, name)
    assert name in home.__all__


def test_what_is_said_to_type_checkers_is_what_is_found():
    tree = ast.parse(Path(ntk_lib.__file__).read_text("utf-8"))
    said = {
        alias.name: node.module.removeprefix("ntk_lib.")
        for block in tree.body
        if isinstance(block, ast.If)
        for node in block.body
        for alias in node.names
    }
    assert said == ntk_lib.HOME
    assert sorted(ntk_lib.HOME) == ntk_lib.__all__


def test_importing_the_package_imports_nothing_heavy():
    lines = "import ntk_lib, sys; dir(ntk_lib); print(ntk_lib.__version__, 'jax' in sys.modules)"
    lines += "; print('numpy' in sys.modules, 'scipy' in sys.modules)"
    assert output_of(lines) == [ntk_lib.__version__, "False", "False", "False"]


def test_everything_can_be_taken_listed_and_looked_up():
    lines = "from ntk_lib import *; import ntk_lib; print(callable(ntk), callable(regression)); "
    lines += "print(set(ntk_lib.__all__) <= set(dir(ntk_lib)))"
    assert output_of(lines) == ["True"] * 3
    assert "predict" in dir(ntk_lib)
    assert "What infinitely wide networks" in inspect.getdoc(ntk_lib.predict)
    for name in ("no_such_name", "__wrapped__"):
        assert not hasattr(ntk_lib, name)


@pytest.mark.parametrize("first", ["", "ntk_lib.regression; "])
def test_a_function_at_the_top_is_not_hidden_by_a_module_of_its_name(first, tmp_path):
    # a chapter of that name, before or after the function was asked for
    tmp_path.joinpath("regression.py").write_text("inside = 5")
    lines = f"import ntk_lib; {first}ntk_lib.__path__.append({str(tmp_path)!r})\n"
    lines += "".join(f"import ntk_lib.{name}\n" for name in sorted({*EVERY, "regression"}))
    lines += "from ntk_lib.regression import inside\nfrom ntk_lib import regression, scale\n"
    lines += "print(inside is not None, regression is scale.regression is ntk_lib.regression)"
    if "regression" in EVERY:
        lines = lines.replace("import inside", "import __all__ as inside")
    assert output_of(lines) == ["True", "True"]


def test_every_module_imported_leaves_the_functions_callable():
    lines = "".join(f"import ntk_lib.{name}\n" for name in EVERY)
    lines += "import ntk_lib; print(all(callable(getattr(ntk_lib, n)) for n in ntk_lib.__all__))"
    assert output_of(lines) == ["True"]
