"""Run by test_evaluation as two processes of four virtual devices each, a mesh over two hosts.

python two_hosts.py NUMBER PORT: which of the two this is, and where they meet.
"""

import sys

import jax
import numpy as np
import pytest

jax.config.update("jax_num_cpu_devices", 4)
jax.distributed.initialize(f"localhost:{sys.argv[2]}", num_processes=2, process_id=int(sys.argv[1]))


def main() -> None:
    from cases import points

    from ntk_lib.engine.arguments import on_one_device
    from ntk_lib.limiting_ntk import ntk

    assert (jax.device_count(), jax.local_device_count()) == (8, 4)
    mesh = jax.make_mesh((2, 4), ("hosts", "devices"))
    x, y = points(64, 5, dtype="float32"), points(32, 5, seed=1, dtype="float32")
    for other in (None, y):
        alone = np.asarray(ntk(x, other, depth=3))
        spread = ntk(x, other, depth=3, mesh=mesh)
        assert spread.shape == alone.shape
        here = spread.addressable_shards
        # half of the rows, a quarter of the columns, and nothing that the other host has
        assert {shard.index[0].start for shard in here} == {32 * int(sys.argv[1])}
        assert {shard.data.shape for shard in here} == {(32, alone.shape[1] // 4)}
        for shard in here:
            error = np.abs(np.asarray(shard.data) - alone[shard.index]).max()
            assert error < 1e-6 * np.abs(alone).max(), error
    with pytest.raises(
        ValueError, match=r"^x needs arrays that this host holds, got one over 8 dev"
    ):
        on_one_device("x", spread)
    print("all as on one host")


main()
