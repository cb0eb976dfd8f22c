"""The runs of the chapter limiting_ntk that take minutes, computed once and kept in book/data.

    make data ONLY=motion        how far training moves the kernel: ReLU and erf, depths 2 and 4

The task is that of Figure 1 of Jacot et al. 2018, as in ``scripts/jacot_2018.py``: x₁x₂ at 64
Gaussian points, 200 steps of rate 1. Networks of different widths share no random numbers. The
chapter reruns one network, and says how far it is from the stored one. Everything that a run
depends on besides ``ntk_lib`` is in ``SETTING``, which goes into the file.
"""

import json
import sys
import time

import jax
import numpy as np

from ntk_lib.engine.data import DATA
from ntk_lib.jacot_2018 import kernels_in_training, saddle
from ntk_lib.wide_networks import circle

# widths and how many networks of each
SETTING = {
    "networks": {
        "relu_2": {"64": 48, "256": 48, "1024": 48, "4096": 48, "16384": 24},
        "erf_2": {"64": 48, "256": 48, "1024": 48, "4096": 48},
        "relu_4": {"64": 100, "128": 100, "256": 100, "512": 100},
        "erf_4": {"64": 48, "256": 48, "1024": 12},
    },
    # networks of relu_4 whose kernels are kept at all steps: the first ten in a row (from 0, 10, …)
    # that are typical of the hundred
    "kept": [80, 90],
    "angles": 97,
    "steps": [0, 50, 100, 150, 200],
    "data_key": 7,
    "key": 5,
}


def kernels(setting: dict, name: str, width: int, draws: int) -> np.ndarray:
    """Θ_t(x₀, ·) on the circle, (draws, times, angles); the times of relu_4 are all steps."""
    activation, depth = name.split("_")
    x, targets = saddle(key=jax.random.key(setting["data_key"]))
    return kernels_in_training(
        circle(np.zeros(1)),
        circle(np.linspace(-np.pi, np.pi, setting["angles"])),
        x,
        targets,
        key=jax.random.fold_in(jax.random.key(setting["key"]), width),
        draws=draws,
        width=width,
        depth=int(depth),
        activation=activation,
        steps=setting["steps"] if name == "relu_4" else [0, setting["steps"][-1]],
    )


def summary(setting: dict, name: str, width: int, found: np.ndarray) -> dict[str, np.ndarray]:
    """What the chapter reads of these kernels, by name."""
    moved = found[:, -1] - found[:, 0]
    size = np.linalg.norm(found[:, 0], axis=1)
    parts = {
        "drift": np.linalg.norm(moved, axis=1) / size,
        "motion": width * moved.mean(0),
        "motion_se": width * moved.std(0, ddof=1) / np.sqrt(len(moved)),
    }
    if name == "relu_4":
        parts["kernels"] = found[slice(*setting["kept"])]
        parts["peaks"] = found[:, :, setting["angles"] // 2]
    return {f"{part}_{name}_{width}": np.float32(array) for part, array in parts.items()}


def main() -> int:
    start, arrays = time.perf_counter(), {}
    for name, widths in SETTING["networks"].items():
        for width, draws in widths.items():
            found = kernels(SETTING, name, int(width), draws)
            arrays |= summary(SETTING, name, int(width), found)
    about = SETTING | {"jax": jax.__version__, "numpy": np.__version__}
    about["minutes"] = round((time.perf_counter() - start) / 60, 1)
    path = DATA / "limiting_ntk_motion.npz"
    np.savez_compressed(path, settings=json.dumps(about), **arrays)
    print(f"{path.name}: {path.stat().st_size // 1024} KiB, {about['minutes']} minutes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
