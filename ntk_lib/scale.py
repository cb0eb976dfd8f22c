"""When n² numbers do not fit: kernel regression and dynamics by products with the kernel.

Serves the chapter ``scale``. ``kernel`` is any kernel function of the book with its options fixed,
say ``functools.partial(ntk, depth=3)``: ``kernel(x, y)`` of points (n, d) and (m, d) is (n, m), and
``kernel(x)`` that of x with itself. A block of it is computed, used and forgotten:

    K(x, y) v                                   kernel_product
    (K + N·ridge·I) α = y                       regression, by conjugate gradients
    f_t = f₀ + K(·, x) c(t)                     flow, by conjugate gradients

The dynamics are those of gradient flow on least squares (Jacot et al. 2018, section 5): with
u₀ = f₀(x) − y, c(t) = −(1/N) ∫₀ᵗ e^(−Ks/N) u₀ ds = −(t/N) ψ(tK/N) u₀, ψ(z) = (1 − e^(−z))/z. In
the variable w = 1/(1 + z/ν) the function ψ/w is smooth on 0 ≤ w ≤ 1, z = 0 to ∞ included, and a
polynomial of degree 16 gives e^(−z) = 1 − zψ(z) to 5e-8 for every z. For the matrix, w is one
system of equations (1 + tK/(νN)) v = b, which conjugate gradients solve.
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jax.typing import ArrayLike
from jaxtyping import Array, Float, PRNGKeyArray
from scipy.sparse.linalg import LinearOperator, cg
from tqdm import tqdm

from ntk_lib.engine.arguments import (
    as_array,
    as_inputs,
    as_key,
    as_nonnegative,
    as_number,
    as_numeric,
    as_positive,
    as_whole,
    check_known,
)

__all__ = ["Solution", "conjugate_gradients", "flow", "kernel_product", "regression"]

Kernel = Callable[..., Array]
"""kernel(x, y) of shape (n, m), and kernel(x) of shape (n, n) for one set of points."""

BLOCK = 2048  # rows and columns of a block: 16 MiB in float32
LONG = 2**26  # entries of a kernel from which a progress bar is shown
DEGREE, NU = 16, 13.5  # of the polynomial in w; this ν gives the smallest error, found by trying


# ---------------------------------------------------------------- products


def _kernel_block(kernel: Kernel, x: Array, y: Array | None) -> Array:
    block = kernel(x) if y is None else kernel(x, y)
    shape = (len(x), len(x if y is None else y))
    if getattr(block, "shape", None) != shape:
        got = getattr(block, "shape", type(block).__name__)
        raise ValueError(f"kernel needs to give shape {shape} for so many points, got {got}")
    return block


def _product(
    kernel: Kernel,
    x: Array,
    v: np.ndarray,
    y: Array | None,
    kept: dict[tuple[int, int], Array] | None = None,
    memory: int = 0,
) -> np.ndarray:
    """K v for v of shape (m, k); without ``y`` a block above the diagonal is used twice.

    The first blocks, up to ``memory`` bytes of them, are put into ``kept`` and taken from there.
    """
    others = x if y is None else y
    rows, columns = range(0, len(x), BLOCK), range(0, len(others), BLOCK)
    result = np.zeros((len(x), v.shape[1]))
    weights = jnp.asarray(v, x.dtype)
    seen = 0
    for i in rows:
        for j in columns if y is not None else columns[i // BLOCK :]:
            here, there = slice(i, i + BLOCK), slice(j, j + BLOCK)
            diagonal = y is None and i == j
            block = None if kept is None else kept.get((i, j))
            if block is None:
                block = _kernel_block(kernel, x[here], None if diagonal else others[there])
            seen += block.nbytes
            if kept is not None and seen <= memory:
                kept[i, j] = block
            result[here] += np.asarray(block @ weights[there])
            if y is None and not diagonal:
                result[there] += np.asarray(weights[here].T @ block).T
    return result


def _columns(name: str, value: ArrayLike, points: int) -> np.ndarray:
    """``value`` of shape (points,) or (points, k) as float64 (points, k)."""
    array = np.asarray(as_array(name, value), np.float64)
    if array.ndim not in (1, 2) or len(array) != points or not array.size:
        raise ValueError(f"{name} needs shape ({points},) or ({points}, k), got {array.shape}")
    return array.reshape(points, -1)


def _as_kernel(kernel: object) -> None:
    if not callable(kernel):
        raise TypeError(f"kernel needs a function of (x, y), got {type(kernel).__name__}")


def kernel_product(
    kernel: Kernel,
    x: Float[ArrayLike, "n d"],
    v: Float[ArrayLike, "m ..."],
    y: Float[ArrayLike, "m d"] | None = None,
) -> Float[Array, "n ..."]:
    """K(x, y) v, never holding more of the kernel than a block of 2048 × 2048.

    ``v`` has shape (m,) or (m, k), one row a point of ``y`` (of ``x`` without ``y``); the result
    (n,) or (n, k), in the kernel's units times those of ``v``. A block and its product are in the
    precision of the points, the sum over blocks in float64. Without ``y`` only blocks on and above
    the diagonal are computed.

    Raises ``TypeError`` for a kernel that is no function, ``ValueError`` for one that does not give
    (n, m), for a ``v`` of another shape, and what ``as_inputs`` raises.
    """
    _as_kernel(kernel)
    check_known(x=x, v=v, y=y)
    x, y = as_inputs(x, y)
    columns = _columns("v", v, len(x if y is None else y))
    product = _product(kernel, x, columns, y)
    return jnp.asarray(product.reshape(len(x), *np.shape(v)[1:]), x.dtype)


# ---------------------------------------------------------------- conjugate gradients


class Solution(NamedTuple):
    """Coefficients α, the steps it took, and what is left: ‖(K + shift) α − b‖/‖b‖, recomputed."""

    coefficients: Float[Array, "n ..."]
    steps: int
    residual: float


def _solve(
    product: Callable[[np.ndarray], np.ndarray],
    b: np.ndarray,
    *,
    shift: float,
    tolerance: float,
    max_steps: int,
    precondition: Callable[[np.ndarray, float], np.ndarray] | None = None,
    bar: tqdm | None = None,
) -> tuple[np.ndarray, int]:
    """(K + shift) α = b for all columns of b together, by SciPy's conjugate gradients."""
    steps = 0

    def step(_: np.ndarray) -> None:
        nonlocal steps
        steps += 1
        if bar is not None:
            bar.update()

    def operator(apply: Callable[[np.ndarray], np.ndarray]) -> LinearOperator:
        def flat(v: np.ndarray) -> np.ndarray:
            return apply(v.reshape(b.shape)).reshape(-1)

        return LinearOperator((b.size, b.size), matvec=flat, dtype=np.float64)

    matrix = operator(lambda v: product(v) + shift * v)
    helper = None if precondition is None else operator(lambda v: precondition(v, shift))
    alpha, unfinished = cg(
        matrix, b.reshape(-1), rtol=tolerance, maxiter=max_steps, M=helper, callback=step
    )
    if unfinished or not np.all(np.isfinite(alpha)):
        raise RuntimeError(
            f"conjugate gradients did not reach the tolerance {tolerance:g} in {max_steps} steps: "
            "a larger ridge, more landmarks or float64 points make the system better conditioned"
        )
    return alpha.reshape(b.shape), steps


def conjugate_gradients(
    product: Callable[[Array], ArrayLike],
    b: Float[ArrayLike, "n ..."],
    *,
    shift: float = 0.0,
    tolerance: float = 1e-5,
    max_steps: int = 1000,
) -> Solution:
    """(A + shift·I) α = b for a symmetric positive semi-definite A known by its products alone.

    ``product(v)`` is A v for v of the shape of ``b``, (n,) or (n, k): say
    ``lambda v: tangent_product(f, params, x, v)`` for a network's own kernel. ``tolerance`` bounds
    the residual over ‖b‖ that the solver keeps account of; the one in the result is recomputed.
    The solver is SciPy's.

    Raises ``TypeError`` when ``product`` is no function, ``ValueError`` for a ``b`` of another
    shape, a negative shift or a tolerance that is not positive, ``RuntimeError`` when ``max_steps``
    steps do not reach the tolerance. Source: Hestenes and Stiefel 1952.
    """
    if not callable(product):
        raise TypeError(f"product needs a function of v, got {type(product).__name__}")
    shift = as_nonnegative("shift", as_number("shift", shift))
    tolerance = as_positive("tolerance", tolerance)
    max_steps = as_whole("max_steps", max_steps, least=1)
    check_known(b=b)
    shape = as_numeric("b", b).shape
    columns = _columns("b", b, shape[0] if shape else 0)

    def times(v: np.ndarray) -> np.ndarray:
        result = as_numeric("product", product(jnp.asarray(v.reshape(shape))))
        if result.shape != shape:
            raise ValueError(f"product needs to give the shape of b, {shape}, got {result.shape}")
        return np.asarray(result, np.float64).reshape(columns.shape)

    options = {"shift": shift, "tolerance": tolerance, "max_steps": max_steps}
    alpha, steps = _solve(times, columns, **options)
    return Solution(jnp.asarray(alpha.reshape(shape)), steps, _left(times, alpha, columns, shift))


def _left(product: Callable, alpha: np.ndarray, b: np.ndarray, shift: float) -> float:
    """‖(K + shift) α − b‖/‖b‖."""
    size = np.linalg.norm(b)
    return float(np.linalg.norm(product(alpha) + shift * alpha - b) / size) if size else 0.0


def _landmarks(
    kernel: Kernel, x: Array, count: int, key: PRNGKeyArray
) -> Callable[[np.ndarray, float], np.ndarray]:
    """v → an approximate (K + shift)⁻¹ v from ``count`` columns of K: Nyström's approximation.

    K ≈ U diag(s) Uᵀ; where U does not reach, K counts as its smallest s.
    """
    chosen = np.asarray(jax.random.choice(key, len(x), (count,), replace=False))
    columns = np.concatenate(
        [
            np.asarray(_kernel_block(kernel, x[i : i + BLOCK], x[chosen]), np.float64)
            for i in range(0, len(x), BLOCK)
        ]
    )
    corner = np.asarray(_kernel_block(kernel, x[chosen], None), np.float64)
    # the usual lift of the corner by its rounding, so that it has a Cholesky factor
    lift = float(jnp.finfo(x.dtype).eps) * np.trace(corner)
    try:
        factor = scipy.linalg.cholesky(corner + lift * np.eye(count), lower=True)
    except scipy.linalg.LinAlgError:
        raise ValueError(
            f"kernel needs to be positive semi-definite, got one that is not at {count} landmarks: "
            "float64 points or fewer landmarks, if it should be"
        ) from None
    half = scipy.linalg.solve_triangular(factor, columns.T, lower=True).T  # K ≈ half halfᵀ
    # by the small matrix halfᵀ half: a sixth of the work of the factors of half itself, and what it
    # cannot resolve, 1e-12 of the largest, is left out
    s, V = scipy.linalg.eigh(half.T @ half)
    s, V = s[::-1], V[:, ::-1]
    found = s > 1e-12 * s[0]
    s, U = s[found], half @ (V[:, found] / np.sqrt(s[found]))

    def precondition(v: np.ndarray, shift: float) -> np.ndarray:
        inside = U.T @ v
        return U @ (inside / (s + shift)[:, None]) + (v - U @ inside) / (s[-1] + shift)

    return precondition


class _System(NamedTuple):
    """What regression and dynamics share: the products, how to help the solver, its options."""

    product: Callable[[np.ndarray], np.ndarray]
    precondition: Callable[[np.ndarray, float], np.ndarray] | None
    options: dict


def _system(
    kernel: Kernel,
    x: Array,
    tolerance: float | None,
    max_steps: int,
    landmarks: int,
    key: PRNGKeyArray | None,
    memory: int,
) -> _System:
    _as_kernel(kernel)
    memory = as_whole("memory", memory, least=0, most=2**62)
    landmarks = as_whole("landmarks", landmarks, least=0)
    if landmarks > len(x):
        raise ValueError(f"landmarks needs at most the {len(x)} points of x, got {landmarks}")
    if tolerance is None:
        tolerance = 1e-5 if x.dtype.itemsize <= 4 else 1e-10
    options = {
        "tolerance": as_positive("tolerance", tolerance),
        "max_steps": as_whole("max_steps", max_steps, least=1),
    }
    kept = {} if memory else None
    product = functools.partial(_product, kernel, x, y=None, kept=kept, memory=memory)
    helper = _landmarks(kernel, x, landmarks, as_key("key", key)) if landmarks else None
    return _System(product, helper, options)


def regression(
    kernel: Kernel,
    x: Float[ArrayLike, "n d"],
    targets: Float[ArrayLike, "n ..."],
    *,
    ridge: float = 0.0,
    tolerance: float | None = None,
    max_steps: int = 1000,
    landmarks: int = 0,
    key: PRNGKeyArray | None = None,
    memory: int = 0,
) -> Solution:
    """Coefficients α with (K + n·ridge·I) α = targets, holding no kernel: f = K(·, x) α.

    ``targets`` has shape (n,) or (n, k), and so has α. Predictions are
    ``kernel_product(kernel, x_new, α, x)``. Each step of conjugate gradients computes the kernel of
    ``x`` once, in blocks; about √(λ_max/(λ_min + n·ridge)) steps are needed for each digit.
    ``landmarks`` columns of the kernel, of points chosen by ``key``, make it far fewer: it holds
    n × landmarks numbers, in float64. The first step keeps blocks of the kernel for the others, up
    to ``memory`` bytes (all of them are about n(n + 2048)/2 numbers). ``tolerance`` bounds the
    residual over ‖targets‖ that the solver keeps account of (default 1e-5 for float32 points, 1e-10
    for float64).

    Raises ``TypeError`` and ``ValueError`` as ``kernel_product`` does, ``ValueError`` for a
    negative ridge, targets of another shape, landmarks without a key, more of them than points or
    a kernel that is indefinite on them, and
    ``RuntimeError`` when ``max_steps`` steps do not reach the tolerance.
    Source: Nyström preconditioning, Frangella, Tropp and Udell 2023.
    """
    check_known(x=x, targets=targets)
    ridge = as_nonnegative("ridge", as_number("ridge", ridge))
    x, _ = as_inputs(x)
    system = _system(kernel, x, tolerance, max_steps, landmarks, key, memory)
    shift = len(x) * ridge
    b = _columns("targets", targets, len(x))
    with tqdm(desc="regression", unit="step", disable=len(x) ** 2 < LONG) as bar:
        alpha, steps = _solve(
            system.product, b, shift=shift, precondition=system.precondition, bar=bar,
            **system.options,
        )  # fmt: skip
    residual = _left(system.product, alpha, b, shift)
    return Solution(jnp.asarray(alpha.reshape(np.shape(targets)), x.dtype), steps, residual)


# ---------------------------------------------------------------- dynamics


def _flow_coefficients() -> np.ndarray:
    """Chebyshev coefficients on 0 ≤ w ≤ 1 of ψ(z)/w, where z = ν(1/w − 1)."""

    def part(s: np.ndarray) -> np.ndarray:
        w = (s + 1) / 2
        z = NU * (1 / w - 1)
        return -np.expm1(-z) / z / w

    return np.polynomial.chebyshev.chebinterpolate(part, DEGREE)


def flow(
    kernel: Kernel,
    x: Float[ArrayLike, "n d"],
    start: Float[ArrayLike, "n ..."],
    times: Float[ArrayLike, " t"],
    *,
    tolerance: float | None = None,
    max_steps: int = 1000,
    landmarks: int = 0,
    key: PRNGKeyArray | None = None,
    memory: int = 0,
) -> Float[Array, "t n ..."]:
    """Coefficients c(t) of gradient flow on least squares, the kernel at rest, at ``times``.

    ``start`` is the residual f₀(x) − targets, (n,) or (n, k). Then at any points
    f_t = f₀ + K(·, x) c(t), and on the data the residual is start + K c(t) = e^(−Kt/n) start.
    Returns shape (t, n) or (t, n, k). As t grows c(t) tends to the ridgeless −K⁻¹ start, which is
    c(∞): a time may be ``math.inf``, and takes one system of equations, K c = −start. A finite one
    takes 17 systems of equations of condition number 1 + tλ_max/(13.5n). Beside 5e-8 of ‖start‖ the
    error of e^(−Kt/n) is that of ``tolerance``, which bounds each system's residual over its right
    side. ``landmarks`` and ``memory`` are those of ``regression``; all systems use the same blocks.

    Raises what ``regression`` raises, and ``ValueError`` for times that are negative, no numbers or
    not of shape (t,).
    """
    check_known(x=x, start=start, times=times)
    x, _ = as_inputs(x)
    system = _system(kernel, x, tolerance, max_steps, landmarks, key, memory)
    u = _columns("start", start, len(x))
    times = np.asarray(as_numeric("times", times), np.float64)
    if times.ndim != 1:
        raise ValueError(f"times needs shape (t,), got {times.shape}")
    if not np.all(times >= 0):
        raise ValueError(f"times needs numbers that are 0 or more, got {times.min()}")
    polynomial, n = _flow_coefficients(), len(x)

    def at(t: float) -> np.ndarray:
        if t == 0:
            return np.zeros_like(u)
        helped = {"precondition": system.precondition, "bar": bar, **system.options}
        if t == math.inf:
            return -_solve(system.product, u, shift=0.0, **helped)[0]
        shift = NU * n / t

        def w(v: np.ndarray) -> np.ndarray:  # (1 + tK/(νn))⁻¹ v
            return _solve(system.product, shift * v, shift=shift, **helped)[0]

        # Clenshaw's recurrence for w Σ_m c_m T_m(2w − 1) u
        low, high = polynomial[-1] * u, np.zeros_like(u)
        for c in polynomial[-2:0:-1]:
            low, high = 2 * (2 * w(low) - low) - high + c * u, low
        return -(t / n) * w(2 * w(low) - low - high + polynomial[0] * u)

    with tqdm(desc="flow", unit="step", disable=n**2 < LONG) as bar:
        path = np.stack([at(t) for t in times]) if len(times) else np.zeros((0, *u.shape))
    return jnp.asarray(path.reshape(len(times), *np.shape(start)), x.dtype)
