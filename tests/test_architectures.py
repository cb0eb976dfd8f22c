"""`ntk_lib.architectures`: kernels of networks with structure, against four other ways to them."""

import itertools
import json
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntk_lib import architectures as arch
from ntk_lib.engine.tangent_kernels import empirical_ntk
from ntk_lib.limiting_ntk import ntk
from ntk_lib.wide_networks import nngp

with np.load(Path(__file__).parent / "data" / "neural_tangents.npz") as archive:
    PEER = {name: archive[name] for name in archive.files if name[-1].isdigit()}
    NETS = [json.loads(text) for text in archive["architectures"].tolist()]

# Sums and products of a few thousand float64 numbers, through a few layers.
ROUNDING = 1e-12
# The peer's angle between equal patches is the root of a rounding error: √ε = 1.5e-8 a layer.
COINCIDING = 1e-6


def built(layers):
    """The network of the fixture's layers, (name, options) each."""
    made = []
    for name, options in layers:
        if name == "residual":
            short = options.get("shortcut")
            branch = built(options["branch"])
            made.append(arch.residual(branch, shortcut=built(short) if short else None))
        else:
            made.append(getattr(arch, name)(**options))
    return arch.serial(*made)


def images(n, *shape, seed=0):
    return np.random.default_rng(seed).normal(size=(n, *shape))


def assert_close(found, expected, tolerance=ROUNDING):
    gap = np.abs(np.asarray(found) - np.asarray(expected)).max()
    assert gap < tolerance * np.abs(expected).max()


@pytest.mark.parametrize("i", range(len(NETS)), ids=lambda i: "-".join(n for n, _ in NETS[i]))
def test_kernels_are_those_of_neural_tangents(x64, i):
    x, net = PEER[f"images{i}"], built(NETS[i])
    found = arch.kernel(net, x, of="both")
    same = np.eye(4, dtype=bool)
    same[0, 3] = same[3, 0] = True  # the first image stands there twice
    for name in found._fields:
        ours, peer = np.asarray(getattr(found, name)), PEER[f"{name} of {i}"]
        gap = np.abs(ours - peer) / np.abs(peer).max()
        print(i, name, gap[~same].max(), gap[same].max())
        assert gap[~same].max() < 1e-9
        assert gap[same].max() < COINCIDING
