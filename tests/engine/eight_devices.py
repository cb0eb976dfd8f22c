"""Run by test_evaluation with eight virtual devices, a number that JAX fixes when it starts."""

import functools

import jax
import numpy as np
import pytest
from cases import points
from jax.sharding import NamedSharding, PartitionSpec

from ntk_lib.engine.tangent_kernels import empirical_ntk, tangent_product
from ntk_lib.limiting_ntk import mlp_ntk, ntk, recursive_ntk
from ntk_lib.wide_networks import apply, init, nngp

MESHES = [((8,), ("rows",)), ((4, 2), ("hosts", "devices")), ((2, 4), ("rows", "columns"))]
OPTIONS = {"depth": 4, "gain": 2.0}


def what_is_spread_already() -> None:
    """Inputs and parameters that lie on several devices, in the default mode of a mesh."""
    mesh = jax.make_mesh((4,), ("rows",), devices=jax.devices()[:4])
    x, y, v = points(8, 5, dtype="float32"), points(4, 5, 1, dtype="float32"), np.ones((8, 2), "f4")
    params = init((5, 6, 2), key=jax.random.key(0), dtype="float32")

    def rows(value):
        return jax.device_put(value, NamedSharding(mesh, PartitionSpec("rows")))

    everywhere = jax.device_put(params, NamedSharding(mesh, PartitionSpec()))
    for w in (params, everywhere):
        for kernel in (functools.partial(empirical_ntk, apply), mlp_ntk):
            for here, spread in (((x,), (rows(x),)), ((x, y), (rows(x), rows(y)))):
                np.testing.assert_array_equal(kernel(w, *spread), kernel(params, *here))
                assert len(kernel(w, *spread).devices()) == 1
        product = tangent_product(apply, w, rows(x), rows(v))
        np.testing.assert_array_equal(product, tangent_product(apply, params, x, v))
    pair = {"a": rows(x), "b": x}
    theta = empirical_ntk(lambda p, t: apply(p, t["a"] + t["b"]), params, pair)
    np.testing.assert_allclose(theta, empirical_ntk(apply, params, 2 * x), rtol=1e-5)


def main() -> None:
    assert jax.device_count() == 8
    rough = points(1536, 5, dtype="float32")
    smooth = rough / np.linalg.norm(rough, axis=1, keepdims=True)
    other = smooth[:504, ::-1]
    # the recursion, factors and one norm; rows that fill several batches and one that do not
    sets = [(rough[:64], 0.1), (rough, 0.0), (smooth[:1000], 0.1)]
    # each kernel on each mesh and with each set
    turns = [
        (kernel, i, (i + turn) % 3) for turn, kernel in enumerate((ntk, nngp)) for i in range(3)
    ]
    for kernel, number, which in turns:
        (shape, names), (x, beta) = MESHES[number], sets[which]
        mesh = jax.make_mesh(shape, names)
        for y in (None, other):
            spread = kernel(x, y, beta=beta, mesh=mesh, **OPTIONS)
            rows, columns = (*shape, 1)[:2]
            part = (spread.shape[0] // rows, spread.shape[1] // columns)
            assert len({shard.device for shard in spread.addressable_shards}) == 8
            for shard in spread.addressable_shards:
                assert shard.data.shape == part, (shard.data.shape, part)
            alone = np.asarray(kernel(x, y, beta=beta, **OPTIONS))
            error = np.abs(np.asarray(spread) - alone).max() / np.abs(alone).max()
            assert error < 1e-6, error
            if y is None:
                np.testing.assert_array_equal(np.diag(spread), np.diag(alone))
    x = rough[:64]
    spread = ntk(x, mesh=jax.make_mesh((8,), ("rows",)), depth=3)
    np.testing.assert_allclose(spread, recursive_ntk(x, depth=3), rtol=1e-5)
    for y, bad in ((None, "x"), (x[:63], "y")):
        given = x[:63] if y is None else x
        with pytest.raises(ValueError, match=f"^{bad} needs a number of points that .* got 63$"):
            ntk(given, y, depth=2, mesh=jax.make_mesh((4, 2), ("rows", "columns")))
    what_is_spread_already()
    print("all as on one device")


if __name__ == "__main__":
    main()
