"""Run by test_evaluation with eight virtual devices, a number that JAX fixes when it starts."""

import itertools

import jax
import numpy as np
import pytest
from cases import points

from ntk_lib.limiting_ntk import ntk, recursive_ntk
from ntk_lib.wide_networks import nngp

MESHES = [((8,), ("rows",)), ((4, 2), ("hosts", "devices")), ((2, 4), ("rows", "columns"))]
OPTIONS = {"depth": 4, "gain": 2.0}


def main() -> None:
    assert jax.device_count() == 8
    rough = points(1536, 5, dtype="float32")
    smooth = rough / np.linalg.norm(rough, axis=1, keepdims=True)
    other = smooth[:504, ::-1]
    # the recursion, factors and one norm; rows that fill several batches and one that do not
    sets = [(rough[:64], 0.1), (rough, 0.0), (smooth[:1000], 0.1)]
    for ((shape, names), (x, beta)), kernel in itertools.product(
        itertools.product(MESHES, sets), (ntk, nngp)
    ):
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
    print("all as on one device")


if __name__ == "__main__":
    main()
