"""What the book's repository keeps: digits, and runs that take minutes.

Serves ``limiting_ntk``, ``jacot_2018``, ``small_data``, ``architectures`` and ``double_descent``,
whose runs the scripts of the same names make.
"""

from pathlib import Path

import numpy as np

__all__ = ["DATA", "load"]

DATA = Path(__file__).parents[2] / "book" / "data"


def load(name: str) -> dict[str, np.ndarray]:
    """The arrays of ``book/data/NAME.npz``; the page ``book/data/README.md`` says what they are.

    Raises ``TypeError`` for what is no name, ``FileNotFoundError``, with the names there are, when
    there is no such file.
    """
    if not isinstance(name, str):
        raise TypeError(f"name needs the name of a file in book/data, got {type(name).__name__}")
    names = sorted(path.stem for path in DATA.glob("*.npz"))
    if name not in names:
        found = ", ".join(names) or "none: the data are in the book's repository, not in a package"
        raise FileNotFoundError(f"name needs a file of book/data, got {name!r}; there are {found}")
    with np.load(DATA / f"{name}.npz", allow_pickle=False) as file:
        return dict(file)
