"""Empirical NTK of a multilayer perceptron: layer by layer against the Jacobian contraction.

Both are compiled, warmed up and timed in turn in one run; what is printed is the ratio of medians.
    make bench
"""

import platform
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp

from ntk_lib.limiting_ntk import mlp_ntk
from ntk_lib.tangent_kernels import empirical_ntk
from ntk_lib.wide_networks import apply, init

POINTS, REPEATS = 200, 5


def alternate(*functions: Callable[[], jax.Array]) -> list[float]:
    """Median seconds of each function, called in turns so that a busy machine hits all alike."""
    seconds = [[] for _ in functions]
    for function in functions:
        function().block_until_ready()
    for _ in range(REPEATS):
        for function, record in zip(functions, seconds, strict=True):
            start = time.perf_counter()
            function().block_until_ready()
            record.append(time.perf_counter() - start)
    return [statistics.median(record) for record in seconds]


def main() -> None:
    print(f"JAX {jax.__version__} on {jax.devices()[0].device_kind}, {platform.machine()}")
    x = jax.random.normal(jax.random.key(0), (POINTS, 2))
    by_jacobian = jax.jit(lambda p: empirical_ntk(apply, p, x, method="contraction"))
    for width in (128, 256, 512):
        params = init((2, width, width, 1), key=jax.random.key(width))
        fast, slow = alternate(lambda p=params: mlp_ntk(p, x), lambda p=params: by_jacobian(p))
        error = float(jnp.abs(mlp_ntk(params, x) - by_jacobian(params)).max())
        print(
            f"width {width}, {POINTS} points: Jacobians / layer by layer = {slow / fast:.0f} "
            f"({1e3 * slow:.0f} ms / {1e3 * fast:.1f} ms), largest difference {error:.1e}"
        )


if __name__ == "__main__":
    main()
