"""What the chapter double_descent does not compute itself: book/data/double_descent.npz.

    make data ONLY=double-descent

Networks of one hidden ReLU layer and many widths, trained by Adam on 200 digits to the end, with
and without wrong labels, and their errors on the way. Everything that the numbers depend on besides
``ntk_lib`` is in ``SETTING``, which goes into the file with the versions of the packages.
"""

import json
import time
from importlib.metadata import version

import jax
import numpy as np
from sklearn.datasets import load_digits
from tqdm import tqdm

from ntk_lib.double_descent import train_by_adam
from ntk_lib.engine.data import DATA

SETTING = {
    "points": 200,
    "held_out": 100,
    "tested": 500,
    "widths": [3, 5, 7, 10, 13, 16, 20, 27, 40, 60, 100, 200],
    "wrong": [0.0, 0.2],
    "seeds": 8,
    "steps": [10, 20, 30, 60, 100, 200, 300, 600, 1000, 2000, 3000],
    "rate": 0.02,
}
PACKAGES = ("scikit-learn", "numpy", "jax")


def digits() -> tuple[np.ndarray, np.ndarray]:
    """All digits (n, 64), centred and with a mean squared entry of 1, and their labels."""
    data = load_digits()
    x = data.data - data.data.mean(axis=0)
    return x / np.sqrt(np.mean(x**2)), data.target


def errors(width: int, wrong: float, seed: int) -> np.ndarray:
    """One network: a row for each of the steps.

    Squared error on the labels it learns, on those held out (as many of them wrong) and on clean
    new ones, and the share of the last that it gets wrong: (times, 4).
    """
    x, label = digits()
    n, held, tested = (SETTING[name] for name in ("points", "held_out", "tested"))
    rng = np.random.default_rng(seed)
    at = rng.permutation(len(label))[: n + held + tested]
    given = label[at].copy()
    for part in (np.arange(n), n + np.arange(held)):
        flipped = rng.permutation(part)[: round(wrong * len(part))]
        given[flipped] = (given[flipped] + rng.integers(1, 10, len(flipped))) % 10
    points, targets = x[at].astype("float32"), (np.eye(10)[given] - 0.1).astype("float32")
    outputs = np.asarray(
        train_by_adam(
            points[:n],
            targets[:n],
            points,
            key=jax.random.key(seed),
            steps=SETTING["steps"],
            width=width,
            rate=SETTING["rate"],
        )
    )
    squared = np.sum((outputs - targets) ** 2, axis=2)
    clean = np.mean(np.argmax(outputs, axis=2)[:, n + held :] != label[at][n + held :], axis=1)
    parts = (slice(n), slice(n, n + held), slice(n + held, None))
    return np.stack([*(squared[:, part].mean(axis=1) for part in parts), clean], axis=1)


def main() -> None:
    begun = time.process_time()
    arrays = {
        f"errors_{round(100 * wrong)}": np.array(
            [
                [errors(width, wrong, seed) for seed in range(SETTING["seeds"])]
                for width in tqdm(SETTING["widths"])
            ],
            "float32",
        )
        for wrong in SETTING["wrong"]
    }
    about = {
        **SETTING,
        "versions": {name: version(name) for name in PACKAGES},
        "CPU minutes": round((time.process_time() - begun) / 60, 1),
    }
    np.savez_compressed(DATA / "double_descent.npz", settings=json.dumps(about), **arrays)


if __name__ == "__main__":
    main()
