"""The runs of the chapter jacot_2018 that take minutes, computed once and kept in book/data.

    make data ONLY=circle        Figure 1, widths 1000, 2000 (twice) and 10 000: ten networks each
    make data ONLY=ensemble      Figure 2, width 1000: a hundred networks for each of three arcs
    make data ONLY=component     Figure 3, widths 1000 and 10 000
    make data ONLY=narrow        Figure 3, width 100: the paper's target and two nearer ones

The chapter reruns one network of each file, and says how far it is from the stored one. Everything
that a run depends on besides ``ntk_lib`` is in ``SETTINGS``, which goes into the file.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable

import jax
import numpy as np
from tqdm import tqdm

from ntk_lib.early_stopping import trained_networks
from ntk_lib.engine.data import DATA, load
from ntk_lib.jacot_2018 import (
    component,
    component_in_training,
    four_angles,
    kernels_in_training,
    saddle,
)
from ntk_lib.limiting_ntk import ntk
from ntk_lib.wide_networks import circle

SETTINGS = {
    "circle": {
        # key 0 is the first whose ten networks of width 2000 scatter at birth as such networks do
        "runs": {
            "1000": {"width": 1000, "draws": 10, "key": 33},
            "2000": {"width": 2000, "draws": 10, "key": 1},
            "2000_typical": {"width": 2000, "draws": 10, "key": 0},
            "10000": {"width": 10000, "draws": 10, "key": 1},
        },
        "angles": 97,
        "data_key": 7,
        "steps": [0, 25, 50, 100, 200],
    },
    "ensemble": {
        "arcs": [1.0, 2.5, 4.7],
        "width": 1000,
        "draws": 100,
        "angles": 97,
        "key": 2,
        "steps": 1000,
    },
    "component": {
        "widths": {"1000": {"draws": 10, "rate": 10.0}, "10000": {"draws": 1, "rate": 20.0}},
        "digits": 512,
        "depth": 5,
        "index": 2,
        "key": 3,
        "times": [0, 100, 200, 300, 400, 600, 800, 1000, 1200, 1600, 2000, 2400, 3200, 4000],
    },
    "narrow": {
        "width": 100,
        "draws": 10,
        "rate": 10.0,
        "sizes": [0.5, 0.15, 0.015],
        "digits": 512,
        "depth": 5,
        "index": 2,
        "key": 3,
        "times": [*range(0, 1501, 100), 1600, 2000, 2400, 3200, 4000],
    },
}


def angles_of(setting: dict) -> np.ndarray:
    return np.linspace(-np.pi, np.pi, setting["angles"])


def run_circle(setting: dict) -> dict[str, np.ndarray]:
    """Θ_t(x₀, ·) on the circle: an array (draws, times, angles) for each run."""
    x, targets = saddle(key=jax.random.key(setting["data_key"]))
    return {
        f"kernels_{name}": kernels_in_training(
            circle(np.zeros(1)),
            circle(angles_of(setting)),
            x,
            targets,
            key=jax.random.key(how["key"]),
            draws=how["draws"],
            width=how["width"],
            steps=setting["steps"],
        )
        for name, how in setting["runs"].items()
    }


def run_ensemble(setting: dict) -> dict[str, np.ndarray]:
    """Outputs on the circle after training on x₁x₂ at four points: (draws, angles) for each arc."""
    at, key = circle(angles_of(setting)), jax.random.key(setting["key"])
    found = {}
    for arc in setting["arcs"]:
        x = np.array(circle(four_angles(arc)), np.float32)
        outputs = []
        for each in tqdm(
            jax.random.split(key, setting["draws"]), desc=f"arc {arc}", unit="network"
        ):
            one = trained_networks(
                x,
                (x[:, 0] * x[:, 1])[None],
                np.array(at, np.float32),
                key=each,
                steps=[setting["steps"]],
                width=setting["width"],
                depth=4,
            )
            outputs.append(np.array(one[0, 0]))
        found[f"outputs_{arc}"] = np.array(outputs)
    return found


def target_of(setting: dict) -> tuple[np.ndarray, np.ndarray]:
    """The digits, (n, 784), and their kernel principal component, (n,), in float32."""
    x = load("mnist")["images"][: setting["digits"]].reshape(setting["digits"], -1) / 255
    with jax.enable_x64(True):
        _, f = component(ntk(x, depth=setting["depth"]), setting["index"])
    return x.astype(np.float32), np.array(f, np.float32)


def learn(setting: dict, *, width: int, draws: int, rate: float, size: float) -> dict:
    """Four arrays of (draws, times) by their names: see ``ntk_lib.jacot_2018.Learning``."""
    learning = component_in_training(
        *target_of(setting),
        key=jax.random.key(setting["key"]),
        draws=draws,
        width=width,
        depth=setting["depth"],
        steps=[round(time / rate) for time in setting["times"]],
        rate=rate,
        size=size,
    )
    return learning._asdict()


def run_component(setting: dict) -> dict[str, np.ndarray]:
    """The four arrays of ``learn`` for each width."""
    return {
        f"{part}_{width}": array
        for width, how in setting["widths"].items()
        for part, array in learn(setting, width=int(width), size=0.5, **how).items()
    }


def run_narrow(setting: dict) -> dict[str, np.ndarray]:
    """The four arrays of ``learn`` for each size."""
    how = {name: setting[name] for name in ("width", "draws", "rate")}
    return {
        f"{part}_{size}": array
        for size in setting["sizes"]
        for part, array in learn(setting, size=size, **how).items()
    }


RUNS: dict[str, Callable[[dict], dict[str, np.ndarray]]] = {
    "circle": run_circle,
    "ensemble": run_ensemble,
    "component": run_component,
    "narrow": run_narrow,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", choices=[*RUNS, []], help="which runs; all by default")
    for name in parser.parse_args().names or RUNS:
        start = time.perf_counter()
        arrays = RUNS[name](SETTINGS[name])
        about = SETTINGS[name] | {"jax": jax.__version__, "numpy": np.__version__}
        about["minutes"] = round((time.perf_counter() - start) / 60, 1)
        DATA.mkdir(exist_ok=True)
        path = DATA / f"jacot_2018_{name}.npz"
        np.savez_compressed(path, settings=json.dumps(about), **arrays)
        print(f"{path.name}: {path.stat().st_size // 1024} KiB, {about['minutes']} minutes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
