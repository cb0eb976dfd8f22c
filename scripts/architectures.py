"""What the chapter architectures does not compute itself: book/data/architectures.npz.

    make data ONLY=architectures
    python -m scripts.architectures trained    one part anew, into the same file

- "trained": networks trained to the end, whose outputs the limiting kernel predicts;
- "random": tangent kernels of random networks of many widths;
- "splits": accuracies of three limiting kernels on digits, over random splits.

Everything that the numbers depend on besides ``ntk_lib`` is in ``SETTING``, which goes into the
file with the versions of the packages.
"""

import json
import sys
import time
from importlib.metadata import version

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_digits
from tqdm import tqdm

from ntk_lib.architectures import NETWORKS, kernel, network
from ntk_lib.engine.data import DATA

SETTING = {
    "trained": {
        "points": 48,
        "new": 100,
        "widths": [2, 8, 32],
        "networks": 4,
        "steps": 600,
        "momentum": 0.9,
    },
    "random": {
        "networks": ["flattened", "pooled", "residual", "normalised", "attention"],
        "widths": [8, 16, 32, 64],
        "draws": 400,
    },
    "splits": {
        "networks": ["perceptron", "flattened", "pooled"],
        "pool": 600,
        "sizes": [25, 50, 100, 200],
        "tested": 200,
        "splits": 20,
    },
}
PACKAGES = ("scikit-learn", "numpy", "jax")


def digits() -> tuple[np.ndarray, np.ndarray]:
    """All digits (n, 8, 8, 1) in random order, each with a mean square of 1; and their labels."""
    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))
    x = data.images[order, :, :, None]
    return x / np.sqrt((x**2).mean(axis=(1, 2, 3), keepdims=True)), data.target[order]


def small_pair() -> np.ndarray:
    """The first two of them at half the size, (2, 4, 4, 1)."""
    x = digits()[0][:2].reshape(2, 4, 2, 4, 2, 1).mean(axis=(2, 4))
    return x / np.sqrt((x**2).mean(axis=(1, 2, 3), keepdims=True))


# ---------------------------------------------------------------- trained


def trained(width: int, seed: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Outputs before and after training, at points to learn and new ones, and the cost left."""
    about, (x, labels) = SETTING["trained"], digits()
    n, count = about["points"], about["points"] + about["new"]
    x, y = (
        jnp.asarray(x[:count], "float32"),
        jnp.asarray(np.where(labels[:n] % 2, -1, 1), "float32"),
    )
    net = NETWORKS["two convolutions"]
    finite = network(net, width=width)
    params = finite.init(jax.random.key(seed), x.shape[1:], dtype="float32")
    rate = n / np.linalg.eigvalsh(np.asarray(kernel(net, x[:n])))[-1]

    def cost(params):
        return jnp.mean((finite.apply(params, x[:n])[:, 0] - y) ** 2) / 2

    @jax.jit
    def run(params):
        def step(carry, _):
            params, speed = carry  # gradient descent with momentum
            slope = jax.grad(cost)(params)
            speed = jax.tree.map(lambda v, g: about["momentum"] * v - rate * g, speed, slope)
            return (jax.tree.map(jnp.add, params, speed), speed), None

        rest = jax.tree.map(jnp.zeros_like, params)
        return jax.lax.scan(step, (params, rest), length=about["steps"])[0][0]

    end = run(params)
    outputs = [np.asarray(finite.apply(p, x)[:, 0]) for p in (params, end)]
    return *outputs, float(cost(end))


def all_trained() -> dict[str, np.ndarray]:
    """start_WIDTH, end_WIDTH (networks, points) and cost_WIDTH (networks,)."""
    arrays, about = {}, SETTING["trained"]
    for width in about["widths"]:
        rows = [trained(width, seed) for seed in tqdm(range(about["networks"]))]
        for name, values in zip(("start", "end", "cost"), zip(*rows, strict=True), strict=True):
            arrays[f"{name}_{width}"] = np.array(values, "float32")
    return arrays


# ---------------------------------------------------------------- random


def kernels_of(name: str, width: int, draws: int) -> np.ndarray:
    """Θ(x, x), Θ(x, x') and Θ(x', x') of two small digits, for random networks: (draws, 3)."""
    x = jnp.asarray(small_pair(), "float32")
    finite = network(NETWORKS[name], width=width, heads=width)

    def one(key):
        params = finite.init(key, x.shape[1:], dtype="float32")
        slopes = jax.tree.leaves(jax.jacobian(lambda p: finite.apply(p, x)[:, 0])(params))
        a, b = (jnp.concatenate([t[i].ravel() for t in slopes]) for i in range(2))
        return jnp.stack([a @ a, a @ b, b @ b])

    return np.asarray(jax.lax.map(one, jax.random.split(jax.random.key(0), draws)))


def all_random() -> dict[str, np.ndarray]:
    """random_NAME_WIDTH."""
    about = SETTING["random"]
    return {
        f"random_{name}_{width}": kernels_of(name, width, about["draws"])
        for name in tqdm(about["networks"])
        for width in about["widths"]
    }


# ---------------------------------------------------------------- splits


def accuracy(gram: np.ndarray, labels: np.ndarray, size: int, split: int) -> float:
    """Share of right answers of regression on ten centred columns, without a ridge."""
    order = np.random.default_rng([split, size]).permutation(len(gram))
    train, test = order[:size], order[-SETTING["splits"]["tested"] :]
    targets = np.eye(10)[labels[train]] - 0.1
    f = gram[np.ix_(test, train)] @ np.linalg.solve(gram[np.ix_(train, train)], targets)
    return float((f.argmax(1) == labels[test]).mean())


def all_splits() -> dict[str, np.ndarray]:
    """accuracies (networks, sizes, splits)."""
    about = SETTING["splits"]
    x, labels = (t[: about["pool"]] for t in digits())
    rows = []
    for name in tqdm(about["networks"]):
        gram = np.asarray(kernel(NETWORKS[name], x.astype("float32")), dtype=float)
        found = [
            [accuracy(gram, labels, n, s) for s in range(about["splits"])] for n in about["sizes"]
        ]
        rows.append(found)
    return {"accuracies": np.array(rows)}


PARTS = {"trained": all_trained, "random": all_random, "splits": all_splits}


def main(names: list[str]) -> int:
    """Run all parts, or those named and keep the rest of the file."""
    path, arrays = DATA / "architectures.npz", {}
    about = SETTING | {"versions": {name: version(name) for name in PACKAGES}, "cpu_minutes": {}}
    if names and path.exists():
        with np.load(path) as file:
            arrays = dict(file)
        old = json.loads(str(arrays.pop("settings")))
        changed = [name for name in PARTS if name not in names and old[name] != about[name]]
        if changed:
            raise SystemExit(
                f"{path.name} has other settings for {', '.join(changed)}: run these too"
            )
        about["cpu_minutes"] = old["cpu_minutes"]
    for name in names or PARTS:
        began = time.process_time()
        arrays |= PARTS[name]()
        about["cpu_minutes"][name] = round((time.process_time() - began) / 60, 1)
        np.savez_compressed(path, settings=json.dumps(about), **arrays)
    print(f"{path.name}: {path.stat().st_size // 1024} KiB, CPU minutes {about['cpu_minutes']}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
