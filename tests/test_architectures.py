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
from ntk_lib.engine.activations import quadrature
from ntk_lib.engine.data import load
from ntk_lib.limiting_ntk import ntk
from ntk_lib.wide_networks import nngp
from scripts import architectures as runs

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
        assert gap[~same].max() < 1e-9
        assert gap[same].max() < COINCIDING


@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_a_net_of_dense_layers_has_the_kernels_of_the_perceptron(x64, activation):
    x = images(4, 3) * np.array([[1], [3], [0.2], [1]])
    x[3] = x[0]
    setting = {"depth": 3, "activation": activation, "gain": 1.7, "beta": 0.3}
    found = arch.kernel(arch.multilayer(**setting), x, of="both")
    assert_close(found.ntk, ntk(x, **setting))
    assert_close(found.nngp, nngp(x, **setting))


def convolved(k, filter, stride, padding):
    """The mean of k over the filter, position by position."""
    sizes, positions, before = k.shape[:2], [], []
    for n, size, step in zip(sizes, filter, stride, strict=True):
        total = 0 if padding == "VALID" else max((-(-n // step) - 1) * step + size - n, 0)
        positions.append(range(0, n + total - size + 1, step))
        before.append(total // 2)
    places = list(itertools.product(*positions))
    out = np.zeros((len(places), len(places)))
    for i, p in enumerate(places):
        for j, q in enumerate(places):
            for move in itertools.product(*map(range, filter)):
                at = [
                    tuple(a + m - b for a, m, b in zip(place, move, before, strict=True))
                    for place in (p, q)
                ]
                if padding == "CIRCULAR":
                    at = [tuple(a % n for a, n in zip(one, sizes, strict=True)) for one in at]
                if all(0 <= a < n for one in at for a, n in zip(one, sizes, strict=True)):
                    out[i, j] += k[at[0] + at[1]] / math.prod(filter)
    return out.reshape(*map(len, positions), *map(len, positions))


@pytest.mark.parametrize(
    ("padding", "stride"), [("SAME", (2, 1)), ("CIRCULAR", (1, 2)), ("VALID", (1, 1))]
)
def test_a_convolution_is_the_mean_over_its_filter_place_by_place(x64, padding, stride):
    x = images(1, 5, 4, 2)
    net = arch.conv((2, 3), stride=stride, padding=padding, W_std=1.5, b_std=0.5)
    k = np.einsum("hwc,ijc->hwij", x[0], x[0]) / 2
    found = arch.covariances(net, x)
    assert_close(found.nngp[0, 0], 1.5**2 * convolved(k, (2, 3), stride, padding) + 0.25)
    np.testing.assert_array_equal(found.ntk, found.nngp)  # the first layer alone is trained


WEIGHTS = {"W_std": 1.3, "b_std": 0.2}
NET = arch.serial(
    arch.conv((2, 3), **WEIGHTS),
    arch.residual(arch.activation("relu"), arch.conv(2, padding="CIRCULAR", **WEIGHTS)),
    arch.average_pool((1, 3), stride=1, padding="SAME"),
    arch.activation("relu"),
    arch.flatten(),
    arch.dense(**WEIGHTS),
)


def test_random_networks_have_these_kernels_on_average(x64):
    x, draws = images(2, 3, 2, 2), 100
    init, f = arch.network(NET, width=64)

    def one(key):
        params = init(key, x.shape[1:])
        slopes = jax.jacrev(f)(params, jnp.asarray(x))
        table = jnp.concatenate([t.reshape(2, -1) for t in jax.tree.leaves(slopes)], axis=1)
        return f(params, jnp.asarray(x))[:, 0], table @ table.T

    out, tangent = jax.lax.map(one, jax.random.split(jax.random.key(3), draws))
    limit = arch.kernel(NET, x, of="both")
    for sample, expected in (
        (out[:, :, None] * out[:, None, :], limit.nngp),
        (tangent, limit.ntk),
    ):
        error = jnp.std(sample, axis=0) / math.sqrt(draws)
        assert np.all(np.abs(sample.mean(axis=0) - expected) < 4 * error)
    assert np.all(np.abs(tangent.mean(axis=0) / limit.ntk - 1) < 0.05)


def test_the_channels_of_one_wide_network_have_the_covariance_of_the_limit(x64):
    x = images(2, 2, 1, 3)

    def attentive(key_std):
        return arch.serial(arch.dense(), arch.layer_norm(), arch.attention(key_std=key_std))

    init, f = arch.network(attentive(1.5), width=400, outputs=2000, heads=4)
    z = f(init(jax.random.key(5), x.shape[1:]), jnp.asarray(x))
    found = jnp.einsum("nhwc,mijc->nmhwij", z, z) / z.shape[-1]
    expected = arch.covariances(attentive(1.5), x).nngp
    # 1/√2000 of the channels, 1/√(4·400) of the heads' and 1.5²/√400 of the logits
    assert np.abs(found - expected).max() < 0.1
    uniform = arch.covariances(attentive(0.0), x).nngp
    assert np.abs(uniform - expected).max() > 0.3


def test_parts_of_any_size_and_both_precisions_give_one_kernel(monkeypatch):
    x = images(9, 4, 3, 2).astype(np.float32)
    x[:, :, 0] = 0  # an empty border
    x[4] = x[2]
    net = arch.serial(
        *(arch.conv(3), arch.activation("relu")) * 2, arch.global_average(), arch.dense()
    )
    exact = arch.kernel(net, x)  # few: in float64
    assert exact.dtype == np.float32
    monkeypatch.setattr(arch, "WORTH", 0)
    monkeypatch.setattr(arch, "LONG", 0)
    monkeypatch.setattr(arch, "CHUNK", 4 * 12**2 * 7)
    found = arch.kernel(net, x)
    np.testing.assert_allclose(found, exact, rtol=2e-6)
    np.testing.assert_array_equal(found, found.T)
    np.testing.assert_allclose(arch.kernel(net, x, diagonal=True), jnp.diag(exact), rtol=2e-6)
    np.testing.assert_allclose(arch.kernel(net, x, x[:2]), exact[:, :2], rtol=2e-6)


def test_pooling_over_all_positions_makes_the_kernel_blind_to_shifts(x64):
    x = images(2, 4, 3, 1)
    shifted = np.roll(x, (1, 2), axis=(1, 2))
    layers = arch.conv(3, padding="CIRCULAR"), arch.activation("relu")
    pooled = arch.serial(*layers, arch.global_average(), arch.dense())
    flat = arch.serial(*layers, arch.flatten(), arch.dense())
    assert_close(arch.kernel(pooled, x, shifted), arch.kernel(pooled, x))
    assert np.abs(arch.kernel(flat, x, shifted) - arch.kernel(flat, x)).max() > 0.02


def test_a_sequence_is_an_image_one_pixel_high(x64):
    x = images(2, 5, 2)

    def net(*filter):
        layers = arch.conv(filter, b_std=0.1), arch.activation("erf"), arch.global_average()
        return arch.serial(*layers, arch.dense())

    assert_close(arch.kernel(net(3), x), arch.kernel(net(1, 3), x[:, None]))
    init, f = arch.network(net(3), width=4, outputs=3)
    assert f(init(jax.random.key(0), (5, 2)), jnp.asarray(x)).shape == (2, 3)


def test_the_kernel_of_positions_is_that_of_images_where_one_position_is_left(x64):
    x, y = images(2, 2, 2, 1), images(3, 2, 2, 1, seed=1)
    layers = arch.conv(2, padding="VALID"), arch.activation("relu"), arch.dense()
    at_positions = arch.covariances(arch.serial(*layers), x, y)
    found = arch.kernel(arch.serial(*layers, arch.flatten(), arch.dense()), x, y, of="both")
    assert_close(at_positions.nngp[:, :, 0, 0, 0, 0], found.nngp)
    assert_close(at_positions.ntk[:, :, 0, 0, 0, 0] + found.nngp, found.ntk)


@pytest.mark.parametrize(
    ("layers", "says"),
    [
        ((arch.activation(),), "net needs a layer with weights .* before activation"),
        ((arch.conv(1), arch.activation(), arch.layer_norm()), "net needs .* before layer_norm"),
        ((arch.conv(1), arch.flatten(), arch.activation()), "net needs .* before activation"),
        ((arch.layer_norm(),), "net needs .* before layer_norm"),
        ((arch.conv(1), *[arch.activation()] * 2), "net needs .* before activation"),
        (
            (arch.conv(1), arch.activation(), arch.residual(arch.conv(1)), arch.activation()),
            "net needs .* before activation",
        ),
        ((arch.residual(arch.conv(1)),), "residual needs .* got the images"),
        (
            (arch.conv(1), arch.residual(arch.conv(1), arch.activation())),
            "branch needs to end in a layer with weights .* got activation",
        ),
        (
            (arch.conv(1), arch.residual(arch.conv(2, stride=2))),
            r"branch needs to keep the size of the image, \(4, 3\), got \(2, 2\)",
        ),
        ((arch.flatten(), arch.average_pool(2)), "net needs the window before flatten"),
        ((arch.global_average(), arch.conv(2)), "net needs the filter before flatten"),
        ((arch.flatten(), arch.flatten()), "net needs flatten.. while there are positions"),
        ((arch.flatten(), arch.attention()), "net needs attention.. while there are positions"),
        ((arch.conv((3,)),), r"net needs the filter .* got \(3,\) .*\(4, 3\)"),
        ((arch.conv(4, padding="VALID"),), r"net needs images at least as large .* \(4, 3\)"),
        ((arch.flatten(),), "net needs a layer with weights .* got none"),
        ((arch.conv(1),), r"net needs flatten\(\) or global_average\(\) before its end"),
    ],
)
def test_networks_without_a_gaussian_limit_are_refused(layers, says):
    with pytest.raises(ValueError, match=f"^{says}"):
        arch.kernel(arch.serial(*layers), images(2, 4, 3, 1))


def test_what_is_no_layer_is_refused(no_hook):
    with pytest.raises(TypeError, match=r"^layers needs .* got function: global_average"):
        arch.serial(arch.conv(1), arch.global_average)
    with pytest.raises(ValueError, match=r"^branch needs at least one layer"):
        arch.residual()


def test_layers_are_equal_by_value_so_that_programs_are_shared():
    made = [arch.serial(arch.conv(3), arch.activation("relu")) for _ in range(2)]
    assert made[0] == made[1]
    assert hash(made[0]) == hash(made[1])


def test_what_an_activation_reads_is_read_at_every_call(x64):
    state = {"factor": 1.0}
    sigma = quadrature(lambda z: state["factor"] * jnp.sin(z))
    # inside a residual branch as well
    top = arch.residual(arch.activation(sigma), arch.dense())
    net, x = arch.serial(arch.dense(), top), jnp.array([[0.3], [1.1]])
    before = np.asarray(arch.kernel(net, x))
    params = arch.network(net, width=4).init(jax.random.key(0), (1,))
    outputs = np.asarray(arch.network(net, width=4).apply(params, x))
    state["factor"] = 2.0
    scaled = arch.serial(arch.dense(), arch.residual(arch.activation(sigma), arch.dense()))
    after = np.asarray(arch.kernel(net, x))
    np.testing.assert_array_equal(after, arch.kernel(scaled, x))
    assert np.all(np.abs(after - before) > 0.1)
    assert np.all(outputs != np.asarray(arch.network(net, width=4).apply(params, x)))


# ---------------------------------------------------------------- what the chapter keeps


def test_the_stored_runs_have_the_settings_of_the_script():
    stored = load("architectures")
    about = json.loads(str(stored["settings"]))
    assert {name: about[name] for name in runs.SETTING} == runs.SETTING
    assert stored["accuracies"].shape == (3, 4, 20)
    for width in about["trained"]["widths"]:
        assert np.all(stored[f"cost_{width}"] < 3e-4)


def test_stored_random_kernels_come_out_again():
    stored = load("architectures")["random_attention_8"]
    np.testing.assert_allclose(runs.kernels_of("attention", 8, 2), stored[:2], rtol=1e-4)
