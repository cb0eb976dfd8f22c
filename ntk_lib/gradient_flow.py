"""Training as a flow: gradient descent, and its limit of small steps.

Serves the chapter ``gradient_flow``. With the cost C(w) of parameters w and d = f - y the residual
on N points, for the least squares C = ‖d‖²/(2N):

    descent           w ← w - η ∇C(w)                     gradient_descent, descent_path
    flow              dw/dt = -∇C(w)                      gradient_flow
    in function space d' = -(1/N) Θ d, f' = -∇_Θ C        Θ is tangent_kernels.empirical_ntk
    a kernel at rest  d' = -A d, d(t) = e^(-At) d(0)      linear_flow, A = Θ/N
    its descent       d(s) = (I - ηA)^s d(0)              linear_descent, critical_rate = 2/λ_max
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int, PyTree

from ntk_lib.engine.arguments import (
    as_array,
    as_counts,
    as_numeric,
    as_params,
    as_positive,
    as_symmetric,
    as_whole,
    check_fits,
    output_of,
)
from ntk_lib.engine.extras import needed

__all__ = [
    "Training",
    "critical_rate",
    "descent_path",
    "gradient_descent",
    "gradient_flow",
    "linear_descent",
    "linear_flow",
]

# ---------------------------------------------------------------- arguments


def _as_cost(cost: Callable[[Any], Array], params: PyTree) -> PyTree:
    """``params`` as arrays, once ``cost`` is known to give one real number for them."""
    if not callable(cost):
        raise TypeError(f"cost needs a function of params, got {type(cost).__name__}")
    params = as_params(params)
    out = output_of("cost", cost, params)
    if getattr(out, "shape", None) != () or not jnp.issubdtype(out.dtype, jnp.floating):
        got = f"shape {out.shape} of {out.dtype}" if hasattr(out, "shape") else type(out).__name__
        raise ValueError(f"cost needs to give one real number, got {got}")
    return params


def _as_rate(rate: ArrayLike, params: PyTree) -> ArrayLike:
    if isinstance(rate, jax.core.Tracer):
        if rate.shape:
            raise TypeError(f"rate needs a real number, got shape {rate.shape}")
        return rate
    rate = as_positive("rate", rate)
    for leaf in jax.tree.leaves(params):
        check_fits("rate", rate, leaf.dtype)
    return rate


# ---------------------------------------------------------------- descent


class Training(NamedTuple):
    """Parameters after gradient descent, and the cost before each step."""

    params: PyTree
    cost: Float[Array, " steps"]


def _step(cost: Callable[[Any], Array], params: PyTree, rate: ArrayLike) -> tuple[PyTree, Array]:
    value, gradient = jax.value_and_grad(cost)(params)
    # the rate takes the parameters' dtype, so that a float64 rate does not widen float32 weights
    return jax.tree.map(lambda w, g: w - jnp.asarray(rate, w.dtype) * g, params, gradient), value


def gradient_descent(
    cost: Callable[[Any], Array], params: PyTree, *, rate: ArrayLike, steps: int
) -> Training:
    """``steps`` steps w ← w - rate·∇C(w) on the scalar function ``cost`` of a pytree ``params``.

    It is Euler's method, with step ``rate``, on the gradient flow w' = -∇C(w). ``rate`` may be
    traced.

    Raises ``TypeError`` when ``cost`` is not callable or a parameter is not a float array,
    ``ValueError`` when ``cost`` does not give one number, for rate ≤ 0 or steps < 0.
    """
    params = _as_cost(cost, params)
    rate = _as_rate(rate, params)
    length = as_whole("steps", steps, least=0)
    return Training(*jax.lax.scan(lambda p, _: _step(cost, p, rate), params, length=length))


def descent_path(
    cost: Callable[[Any], Array], params: PyTree, *, rate: ArrayLike, steps: int
) -> PyTree:
    """Where gradient descent goes: the parameters before the first step and after each step.

    Returns the pytree ``params`` with a leading axis of length ``steps`` + 1; raises what
    ``gradient_descent`` raises.
    """
    params = _as_cost(cost, params)
    rate = _as_rate(rate, params)
    length = as_whole("steps", steps, least=0)

    def step(p: PyTree, _: None) -> tuple[PyTree, PyTree]:
        return _step(cost, p, rate)[0], p

    last, path = jax.lax.scan(step, params, length=length)
    return jax.tree.map(lambda w, end: jnp.concatenate([w, end[None]]), path, last)


# ---------------------------------------------------------------- the flow


def gradient_flow(
    cost: Callable[[Any], Array],
    params: PyTree,
    *,
    times: Float[ArrayLike, " t"],
    tolerance: float | None = None,
    max_steps: int = 100_000,
) -> PyTree:
    """The parameters at each of ``times`` along w' = -∇C(w), w(0) = ``params``.

    The solver is the explicit Runge-Kutta method of Tsitouras (2011) with adaptive steps, from
    ``diffrax``. ``tolerance`` bounds the estimated error of a step, absolute and relative (default:
    machine epsilon to the power 2/3, 4e-11 in float64 and 2e-5 in float32); the error of the
    result is larger, by how much depends on the problem. ``times`` are finite, start at 0 or
    later and do not decrease. Returns the pytree ``params`` with a leading time axis. All
    parameters need one dtype.

    Raises what ``gradient_descent`` raises, ``ValueError`` for bad ``times`` or ``tolerance``, and
    ``RuntimeError`` when the solver does not arrive: after ``max_steps`` steps (a stiff flow needs
    about λ_max·time/3 of them), or because the flow leaves every bound or the cost becomes NaN.
    ``ModuleNotFoundError`` where ``diffrax`` is not installed.
    """
    diffrax, equinox = (
        needed(name, by="gradient_flow", extra="training") for name in ("diffrax", "equinox")
    )
    params = _as_cost(cost, params)
    dtypes = {leaf.dtype for leaf in jax.tree.leaves(params)}
    if len(dtypes) > 1:
        raise TypeError(f"params needs one dtype, got {sorted(map(str, dtypes))}")
    (dtype,) = dtypes
    given = as_numeric("times", times)
    if not isinstance(given, jax.core.Tracer) and np.any(given == np.inf):
        raise ValueError(
            "times needs finite numbers, got one that is infinite: a long time, and ∇C there, tell "
            "whether the flow has come to rest; of a kernel at rest linear_flow gives the end"
        )
    times = as_array("times", times, dtype=dtype)
    if times.ndim != 1 or not times.size:
        raise ValueError(f"times needs shape (t,), at least one time, got {times.shape}")
    if not isinstance(times, jax.core.Tracer):
        steps = np.diff(np.asarray(times), prepend=0)
        if np.any(steps < 0):
            raise ValueError("times needs to start at 0 or later and not to decrease")
    max_steps = as_whole("max_steps", max_steps, least=1)
    if tolerance is None:
        tolerance = float(jnp.finfo(dtype).eps) ** (2 / 3)
    tolerance = as_positive("tolerance", tolerance)
    check_fits("tolerance", tolerance, dtype)

    def velocity(_t: Array, p: PyTree, _args: None) -> PyTree:
        return jax.tree.map(jnp.negative, jax.grad(cost)(p))

    @jax.jit  # compiled as one program: several times faster than operation by operation
    def solve(p: PyTree, ts: Array) -> tuple[PyTree, Any]:
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(velocity),
            diffrax.Tsit5(),
            t0=jnp.zeros((), dtype),
            t1=ts[-1],
            dt0=None,  # the solver's own choice
            y0=p,
            saveat=diffrax.SaveAt(ts=ts),
            stepsize_controller=diffrax.PIDController(rtol=tolerance, atol=tolerance),
            max_steps=max_steps,
            throw=False,
        )
        return solution.ys, solution.result

    path, result = solve(params, times)
    failed = result != diffrax.RESULTS.successful
    message = f"gradient_flow did not reach the last time within {max_steps} steps"
    if isinstance(failed, jax.core.Tracer):  # under jit the error comes when the program runs
        return equinox.error_if(path, failed, message)
    if failed:
        raise RuntimeError(f"{message}: {diffrax.RESULTS[result]}")
    return path


# ---------------------------------------------------------------- a kernel at rest


def _modes(kernel: ArrayLike, start: ArrayLike) -> tuple[Array, Array, Array]:
    """Eigenvalues of A, eigenvectors as columns, and the start's coefficients in them, (n, k)."""
    kernel, start = as_symmetric("kernel", kernel), as_array("start", start)
    if start.ndim not in (1, 2) or start.shape[0] != len(kernel) or not start.size:
        n = len(kernel)
        raise ValueError(f"start needs shape ({n},) or ({n}, k), got {start.shape}")
    dtype = max(kernel.dtype, start.dtype, key=lambda kind: kind.itemsize)
    values, vectors = jnp.linalg.eigh(kernel.astype(dtype))
    return values, vectors, vectors.T @ start.astype(dtype)


def _path(shares: Array, vectors: Array, coefficients: Array) -> Array:
    """What is left of each mode, (t, n), times the start's coefficients, at the points."""
    if coefficients.ndim == 1:
        return (shares * coefficients[None, :]) @ vectors.T
    return jnp.einsum("ia,tak->tik", vectors, shares[:, :, None] * coefficients[None])


def linear_flow(
    kernel: Float[ArrayLike, "n n"],
    start: Float[ArrayLike, " n *k"],
    times: Float[ArrayLike, " t"],
) -> Float[Array, "t n *k"]:
    """d(t) = e^(-At) d(0), the solution of d' = -A d for a symmetric A, at each of ``times``.

    ``kernel`` is A, shape (n, n): for the residual of least squares the tangent kernel over N.
    ``start`` is d(0), shape (n,), or (n, k) for k outputs. A time may be ``math.inf``: then what is
    left are the modes whose eigenvalue is zero to rounding. Returns shape (len(times), n) or
    (len(times), n, k), in the wider dtype of kernel and start.

    Raises ``ValueError`` for a kernel that is not square or not symmetric to rounding, a start of
    another length, times that are not of shape (t,), and a time at infinity for a kernel with a
    negative eigenvalue.
    """
    values, vectors, coefficients = _modes(kernel, start)
    times = as_numeric("times", times)
    if times.ndim != 1:
        raise ValueError(f"times needs shape (t,), got {times.shape}")
    if isinstance(times, jax.core.Tracer):
        times = as_array("times", times, dtype=values.dtype)
        return _path(_decay(values, times), vectors, coefficients)
    ends = times == np.inf
    if np.any(ends):
        _check_at_rest(values)
    times = jnp.where(
        ends, jnp.inf, as_array("times", np.where(ends, 0, times), dtype=values.dtype)
    )
    return _path(_decay(values, times), vectors, coefficients)


def _slack(values: Array) -> Array:
    """How far from 0 rounding may move an eigenvalue of 0."""
    return len(values) * jnp.finfo(values.dtype).eps * jnp.max(jnp.abs(values))


def _check_at_rest(values: Array) -> None:
    if not isinstance(values, jax.core.Tracer) and values[0] < -100 * _slack(values):
        raise ValueError(
            "kernel needs to be positive semi-definite where a time is infinite, got an eigenvalue "
            f"of {float(values[0]):.3g}: its mode grows without bound"
        )


def _decay(values: Array, times: Array) -> Array:
    """e^(-λt) for each time and eigenvalue; at t = ∞ 1 for those that are 0 to rounding."""
    ends = jnp.isinf(times)[:, None]
    end = (values <= _slack(values)).astype(values.dtype)[None, :]
    return jnp.where(ends, end, jnp.exp(-jnp.outer(jnp.where(ends[:, 0], 0, times), values)))


def linear_descent(
    kernel: Float[ArrayLike, "n n"],
    start: Float[ArrayLike, " n *k"],
    *,
    rate: ArrayLike,
    steps: Sequence[int] | Int[ArrayLike, " t"],
) -> Float[Array, "t n *k"]:
    """d(s) = (I - ηA)^s d(0), descent of rate η on d' = -A d, after each number s of ``steps``.

    Arguments and errors as for ``linear_flow``; ``rate`` is η > 0, and ``steps`` are whole numbers,
    0 or more. Returns shape (len(steps), n) or (len(steps), n, k).
    """
    values, vectors, coefficients = _modes(kernel, start)
    counts = as_counts("steps", steps, least=0, most=2**63 - 1)  # a large number costs nothing
    factors = 1 - jnp.asarray(_as_rate(rate, values), values.dtype) * values
    powers = factors[None, :] ** jnp.asarray(counts, values.dtype)[:, None]
    return _path(powers, vectors, coefficients)


def critical_rate(kernel: Float[ArrayLike, "n n"]) -> Float[Array, ""]:
    """2/λ_max of a positive semi-definite A: above it, descent on d' = -A d diverges.

    Raises ``ValueError`` for a kernel that is not square, not symmetric, or has no positive
    eigenvalue or a negative one (beyond rounding).
    """
    values = jnp.linalg.eigvalsh(as_symmetric("kernel", kernel))
    if not isinstance(values, jax.core.Tracer):
        low, high = float(values[0]), float(values[-1])
        slack = 100 * len(values) * float(jnp.finfo(values.dtype).eps) * high
        if high <= 0 or low < -slack:
            raise ValueError(
                "kernel needs to be positive semi-definite and not zero, "
                f"got eigenvalues from {low:.3g} to {high:.3g}"
            )
    return 2 / values[-1]
