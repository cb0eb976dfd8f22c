"""Kernels as neural-tangents computes them, kept for the tests that run without it.

    make peers-fixture        writes tests/data/neural_tangents.npz

The file holds, in float64: ``cases``, one JSON object a limit; ``x``, two sets of points, of
different norms and of equal norm, and of each case ``nngp`` and ``ntk``, shape (cases, n, n). And
``networks``, one JSON object a network; of network i its layers ``W{i}_{j}`` (n_out, n_in) and
``b{i}_{j}`` (n_out,), its points ``x{i}`` and its kernel ``ntk{i}``, shape (n, n, k, k). The first
point of a set stands in it twice.

And predictions of one network, ``predicted``, trained on ``train`` with ``labels`` and asked at
``test``: ``predictions``, one JSON object each, and of each ``mean`` (predictions, m) and
``covariance`` (predictions, m, m). No time is t = ∞; ``reg`` is added to the diagonal.

And ``architectures``, one JSON object each: its layers as (name, options), as ``structured`` and
the tests read them. Of architecture i the images ``images{i}``, (n, h, w, channels), the first of
which stands there twice, and their kernels ``nngp of {i}`` and ``ntk of {i}``, (n, n).
"""

import itertools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.peers import multilayer, neural_tangents, structured

__all__ = ["FIXTURE", "main"]

FIXTURE = Path(__file__).parents[1] / "tests" / "data" / "neural_tangents.npz"

POINTS, INPUTS = 5, 3
NETWORKS = [
    {"widths": [3, 6, 1], "activation": "relu", "gain": 2.0, "beta": 0.1},
    {"widths": [2, 5, 4, 3], "activation": "erf", "gain": 1.0, "beta": 0.5},
    {"widths": [4, 5, 6, 4, 2], "activation": "leaky_relu", "gain": 1.5, "beta": 0.0},
]

NETWORK = {"activation": "relu", "depth": 3, "gain": 2.0, "beta": 0.1}  # that predicts
TAKES = ("activation", "gain", "beta")

RELU, ERF, FLAT, MEAN, DENSE = (
    ["activation", {"sigma": "relu"}],
    ["activation", {"sigma": "erf"}],
    ["flatten", {}],
    ["global_average", {}],
    ["dense", {"W_std": 1.2, "b_std": 0.2}],
)


def _conv(filter: int | list[int], **options: object) -> list:
    return ["conv", {"filter": filter, "W_std": 1.3, "b_std": 0.1} | options]


BRANCH = ["residual", {"branch": [RELU, _conv(3), RELU, _conv([3, 1])]}]
SHORT = [["conv", {"filter": 1, "stride": 2, "W_std": 0.9}]]
ARCHITECTURES = [
    ([4, 5, 3], [_conv(3), RELU, FLAT, DENSE]),
    ([5, 3, 2], [_conv([3, 2]), RELU, _conv(3, b_std=0.0), RELU, MEAN, DENSE]),
    ([4, 6, 2], [_conv(3, stride=2), ERF, _conv([1, 3], padding="CIRCULAR"), ERF, MEAN, DENSE]),
    ([5, 4, 3], [_conv(2, padding="VALID"), RELU, _conv(3, padding="VALID"), RELU, FLAT, DENSE]),
    ([6, 5, 2], [_conv(2, stride=2), RELU, _conv(2, stride=[1, 2]), RELU, FLAT, DENSE]),
    ([4, 4, 2], [_conv(3), BRANCH, RELU, MEAN, DENSE]),
    ([4, 3, 1], [_conv(3, padding="CIRCULAR"), BRANCH, BRANCH, RELU, FLAT, DENSE]),
    ([4, 5, 2], [_conv(3), ["residual", {"branch": [RELU, _conv(3, stride=2)], "shortcut": SHORT}],
                 RELU, MEAN, DENSE]),
    ([6, 4, 2], [_conv(3), RELU, ["average_pool", {"window": 2}], _conv(3), RELU, FLAT, DENSE]),
    ([5, 5, 1], [_conv(3), ["average_pool", {"window": [3, 2], "stride": 1}], ERF, MEAN, DENSE,
                 RELU, DENSE]),
    ([4, 3, 2], [_conv(3), ["layer_norm", {}], RELU, _conv(3), ["layer_norm", {}], ERF, MEAN,
                 DENSE]),
    ([3, 3, 2], [DENSE, ["attention", {"key_std": 1.5, "W_std": 1.3, "b_std": 0.1}], RELU,
                 ["attention", {"key_std": 0.8, "W_std": 0.9}], MEAN, DENSE]),
    ([4, 3, 2], [_conv(3), RELU, _conv(3), RELU, _conv(3), RELU, _conv(3), RELU, MEAN, DENSE]),
    ([5, 4, 2], [DENSE, ERF, DENSE, RELU, FLAT, DENSE, ERF, DENSE]),
]  # fmt: skip


def _points(rng: np.random.Generator, d: int) -> np.ndarray:
    """Points whose norms lie between 0.3 and 3, the last one equal to the first."""
    x = rng.normal(size=(POINTS, d))
    x *= 10 ** rng.uniform(-0.5, 0.5, (POINTS, 1)) / np.linalg.norm(x, axis=1, keepdims=True)
    x[-1] = x[0]
    return x


def limits(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """NNGP and NTK of every activation, depth, gain and β."""
    spread = _points(rng, INPUTS)
    norms = np.linalg.norm(spread, axis=1, keepdims=True)
    x = np.stack([spread, spread / norms * np.sqrt(INPUTS)])
    settings = itertools.product(
        ("relu", "leaky_relu", "erf", "sin", "cos"), (1, 2, 4, 11), (1.0, 2.0), (0.0, 0.1), (0, 1)
    )
    cases, nngp, ntk = [], [], []
    for activation, depth, gain, beta, points in settings:
        case = {"activation": activation, "depth": depth, "gain": gain, "beta": beta}
        _, _, kernel = multilayer([1] * depth, gain=gain, beta=beta, activation=activation)
        both = kernel(jnp.asarray(x[points]), None, ("nngp", "ntk"))
        cases.append(json.dumps(case | {"points": points}))
        nngp.append(both.nngp)
        ntk.append(both.ntk)
    return {"x": x, "cases": np.array(cases), "nngp": np.array(nngp), "ntk": np.array(ntk)}


def networks(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Kernels of networks with the parameters that they belong to."""
    arrays = {"networks": np.array([json.dumps(network) for network in NETWORKS])}
    for i, network in enumerate(NETWORKS):
        n_in, *widths = network["widths"]
        settings = {key: network[key] for key in ("activation", "gain", "beta")}
        init, apply, _ = multilayer(widths, **settings)
        _, drawn = init(jax.random.PRNGKey(i), (-1, n_in))
        x = _points(rng, n_in)
        kernel = neural_tangents.empirical_ntk_fn(apply, trace_axes=(), vmap_axes=0)
        arrays |= {f"x{i}": x, f"ntk{i}": np.asarray(kernel(jnp.asarray(x), None, drawn))}
        for j, (W, b) in enumerate(layer for layer in drawn if layer):
            arrays[f"W{i}_{j}"] = np.asarray(W).T
            arrays[f"b{i}_{j}"] = np.zeros(W.shape[1]) if b is None else np.ravel(b)
    return arrays


def predictions(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Ensembles of trained networks and Gaussian processes, early and at the end of training."""
    _, _, kernel = multilayer([1] * NETWORK["depth"], **{k: NETWORK[k] for k in TAKES})
    train, test, labels = rng.normal(size=(7, 3)), rng.normal(size=(4, 3)), rng.normal(size=7)
    cases, mean, covariance = [], [], []
    for by, time, reg in itertools.product(("ntk", "nngp"), (1.0, 20.0, None), (0.0, 0.01)):
        ensemble = neural_tangents.predict.gradient_descent_mse_ensemble(
            kernel, train, labels[:, None], diag_reg=reg, diag_reg_absolute_scale=True
        )
        found = ensemble(t=time, x_test=test, get=by, compute_cov=True)
        cases.append(json.dumps({"by": by, "time": time, "reg": reg}))
        mean.append(np.ravel(found.mean))
        covariance.append(np.reshape(found.covariance, (4, 4)))
    kept = {"train": train, "test": test, "labels": labels, "predicted": json.dumps(NETWORK)}
    kept |= {"predictions": cases, "mean": mean, "covariance": covariance}
    return {name: np.array(value) for name, value in kept.items()}


def architectures(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """NNGP and NTK of convolutions, pooling, residual sums, layer norm and attention."""
    arrays = {"architectures": np.array([json.dumps(layers) for _, layers in ARCHITECTURES])}
    for i, (shape, layers) in enumerate(ARCHITECTURES):
        images = rng.normal(size=(3, *shape))
        images = np.concatenate([images, images[:1]])
        _, _, kernel = structured(layers)
        both = kernel(jnp.asarray(images), None, ("nngp", "ntk"))
        arrays |= {f"images{i}": images, f"nngp of {i}": both.nngp, f"ntk of {i}": both.ntk}
    return arrays


def main() -> None:
    jax.config.update("jax_enable_x64", True)
    rng = np.random.default_rng(1806)
    FIXTURE.parent.mkdir(exist_ok=True)
    kept = limits(rng) | networks(rng) | predictions(rng) | architectures(rng)
    np.savez_compressed(FIXTURE, **kept)
    print(f"written: {FIXTURE.name}, {FIXTURE.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    main()
