"""Our kernels and predictions against those of neural-tangents, computed once in float64.

`make peers-fixture` remakes them (benchmarks/fixture.py).
"""

import json
import math
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from ntk_lib.engine.activations import ACTIVATIONS, leaky_relu
from ntk_lib.engine.sigmoids import DUALS
from ntk_lib.limiting_ntk import mlp_ntk, ntk, recursive_ntk
from ntk_lib.prediction import predict
from ntk_lib.wide_networks import Layer, nngp

with np.load(Path(__file__).parent / "data" / "neural_tangents.npz") as archive:
    PEER = dict(archive)
CASES = [json.loads(text) for text in PEER["cases"].tolist()]
NETWORKS = [json.loads(text) for text in PEER["networks"].tolist()]
PREDICTIONS = [json.loads(text) for text in PEER["predictions"].tolist()]
KNOWN = ACTIVATIONS | {"leaky_relu": leaky_relu(0.1)}

# Entries are sums and products of a few dozen float64 numbers, through up to eleven layers.
ROUNDING = 1e-11
# Where two points coincide, their angle is the root of a rounding error: √ε = 1.5e-8 a layer.
COINCIDING = 1e-6


def settings(case):
    keys = ("depth", "gain", "beta")
    return {key: case[key] for key in keys} | {"activation": KNOWN[case["activation"]]}


def named(case):
    return "-".join(str(value) for value in case.values())


def assert_agrees(kernel, peer, x, other=None):
    """Entry by entry, relative to the scale √(Θ(x, x)Θ(x', x')) of the peer's."""
    columns = len(peer) if other is None else len(other)
    scale = np.sqrt(np.outer(np.diag(peer), np.diag(peer)))[:, :columns]
    gap = np.abs(np.asarray(kernel) - peer[:, :columns]) / scale
    same = np.all(x[:, None] == x[None, :columns], axis=-1)
    assert same.sum() > columns  # the first and the last point are one
    assert gap[~same].max() < ROUNDING
    assert gap[same].max() < COINCIDING


def test_the_fixture_holds_what_it_is_to_hold():
    # those of DUALS it has not in closed form, or not at all
    assert {case["activation"] for case in CASES} == set(KNOWN) - set(DUALS)
    assert {case["depth"] for case in CASES} == {1, 2, 4, 11}
    assert len(CASES) == len({named(case) for case in CASES}) == len(PEER["ntk"])
    assert {network["widths"][-1] for network in NETWORKS} == {1, 2, 3}


@pytest.mark.parametrize("i", range(len(CASES)), ids=lambda i: named(CASES[i]))
def test_limits_are_those_of_neural_tangents(x64, i):
    case, peer = settings(CASES[i]), PEER["ntk"][i]
    x = PEER["x"][CASES[i]["points"]]
    assert_agrees(ntk(x, **case), peer, x)
    assert_agrees(ntk(x, x[:3], **case), peer, x, x[:3])
    assert_agrees(recursive_ntk(x, **case), peer, x)
    assert_agrees(nngp(x, **case), PEER["nngp"][i], x)


@pytest.mark.parametrize("i", range(len(NETWORKS)), ids=lambda i: named(NETWORKS[i]))
def test_kernels_of_networks_are_those_of_neural_tangents(x64, i):
    network, x, peer = NETWORKS[i], PEER[f"x{i}"], PEER[f"ntk{i}"]
    layers = range(len(network["widths"]) - 1)
    params = [Layer(jnp.asarray(PEER[f"W{i}_{j}"]), jnp.asarray(PEER[f"b{i}_{j}"])) for j in layers]
    keywords = {key: network[key] for key in ("gain", "beta")}
    kernel = mlp_ntk(params, x, activation=KNOWN[network["activation"]], **keywords)
    kernel = np.asarray(kernel).reshape(peer.shape)
    assert np.abs(kernel - peer).max() < ROUNDING * np.abs(peer).max()


@pytest.mark.parametrize("i", range(len(PREDICTIONS)), ids=lambda i: named(PREDICTIONS[i]))
def test_predictions_are_those_of_neural_tangents(x64, i):
    case, network = PREDICTIONS[i], json.loads(str(PEER["predicted"]))
    time = math.inf if case["time"] is None else case["time"]
    options = {"by": case["by"], "time": time, "noise": math.sqrt(case["reg"])}
    found = predict(PEER["train"], PEER["labels"], PEER["test"], **options, **network)
    for ours, theirs in ((found.mean, PEER["mean"][i]), (found.covariance, PEER["covariance"][i])):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=ROUNDING * np.abs(theirs).max())


def test_there_are_predictions_early_late_and_at_the_end_with_noise_and_without():
    assert {(case["by"], case["time"], case["reg"]) for case in PREDICTIONS} == {
        (by, time, reg)
        for by in ("ntk", "nngp")
        for time in (1.0, 20.0, None)
        for reg in (0.0, 0.01)
    }
