"""The library under *The Neural Tangent Kernel, Interactively*: one module a chapter.

``book/NAME.ipynb``, ``ntk_lib/NAME.py`` and ``tests/test_NAME.py`` belong together. What several
chapters share is in ``ntk_lib.engine``, what only pages need in ``ntk_lib.page``, and what stands
on the chapters is ``ntk_lib.prediction`` and, for scikit-learn, ``ntk_lib.estimators``.

What people take home is here too, ``from ntk_lib import ntk, predict``: each name is the module's
own object, and its module is imported when the name is first asked for.
"""

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ntk_lib.early_stopping import smoother, trained_ensemble
    from ntk_lib.engine.activations import leaky_relu, quadrature
    from ntk_lib.engine.tangent_kernels import as_matrix, empirical_ntk, tangent_product
    from ntk_lib.estimators import NTKClassifier, NTKRegressor
    from ntk_lib.kernels import kernel_regression, polynomial, rbf
    from ntk_lib.lazy import flow_filter, linearise, linearised_change
    from ntk_lib.limiting_ntk import mlp_ntk, ntk
    from ntk_lib.prediction import Prediction, predict
    from ntk_lib.scale import kernel_product, regression
    from ntk_lib.wide_networks import apply, init, nngp

__version__ = "0.3.0"
__all__ = [
    "NTKClassifier",
    "NTKRegressor",
    "Prediction",
    "apply",
    "as_matrix",
    "empirical_ntk",
    "flow_filter",
    "init",
    "kernel_product",
    "kernel_regression",
    "leaky_relu",
    "linearise",
    "linearised_change",
    "mlp_ntk",
    "nngp",
    "ntk",
    "polynomial",
    "predict",
    "quadrature",
    "rbf",
    "regression",
    "smoother",
    "tangent_product",
    "trained_ensemble",
]

HOME = {
    "NTKClassifier": "estimators",
    "NTKRegressor": "estimators",
    "Prediction": "prediction",
    "apply": "wide_networks",
    "as_matrix": "engine.tangent_kernels",
    "empirical_ntk": "engine.tangent_kernels",
    "flow_filter": "lazy",
    "init": "wide_networks",
    "kernel_product": "scale",
    "kernel_regression": "kernels",
    "leaky_relu": "engine.activations",
    "linearise": "lazy",
    "linearised_change": "lazy",
    "mlp_ntk": "limiting_ntk",
    "nngp": "wide_networks",
    "ntk": "limiting_ntk",
    "polynomial": "kernels",
    "predict": "prediction",
    "quadrature": "engine.activations",
    "rbf": "kernels",
    "regression": "scale",
    "smoother": "early_stopping",
    "tangent_product": "engine.tangent_kernels",
    "trained_ensemble": "early_stopping",
}


class _Package(ModuleType):
    """A package in which a function and a submodule may have one name: the function is found."""

    def __getattr__(self, name: str) -> object:
        if name not in HOME:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        thing = getattr(importlib.import_module(f"{self.__name__}.{HOME[name]}"), name)
        setattr(self, name, thing)
        return thing

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in HOME and isinstance(value, ModuleType)):
            super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *__all__})


sys.modules[__name__].__class__ = _Package
