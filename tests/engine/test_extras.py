"""What is said when a package that one function needs is not installed."""

import sys

import pytest

from ntk_lib.engine.extras import needed


def test_a_package_that_is_here_is_handed_over():
    assert needed("json", by="f", extra="figures") is sys.modules["json"]


def test_a_package_that_is_not_here_is_named_with_the_way_to_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "diffrax", None)  # as if it were not installed
    says = r"^gradient_flow needs diffrax: pip install diffrax, or .* its extra 'training'$"
    with pytest.raises(ModuleNotFoundError, match=says):
        needed("diffrax", by="gradient_flow", extra="training")


def test_a_package_of_another_name_is_named_as_it_is_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    says = r"^NTKRegressor needs scikit-learn: pip install scikit-learn, or .* 'estimators'$"
    with pytest.raises(ModuleNotFoundError, match=says):
        needed("sklearn", by="NTKRegressor", extra="estimators")


def test_what_a_package_itself_lacks_is_its_own_error(monkeypatch, tmp_path):
    (tmp_path / "half_there.py").write_text("import nothing_of_this_name\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="nothing_of_this_name"):
        needed("half_there", by="f", extra="figures")
