"""Training that stays near the linearised model, and what makes a model lazy.

Serves the chapter ``lazy``. The linearised model is the first-order Taylor expansion in the weights

    f_lin(x; w) = f(x; w₀) + ∇f(x; w₀)·(w - w₀),

a kernel machine with the tangent kernel Θ₀ of the start. Under gradient descent on
C = (1/2N) Σ (f(x_i) - y_i)² with rate η its outputs after s steps are known in closed form,

    f_s(x) = f₀(x) - Θ₀(x, X) Θ₀⁻¹ (I - (I - ηA)^s) d₀,    A = Θ₀/N,  d₀ = f₀(X) - y,

and with e^(-tA) in place of the power for gradient flow up to the time t. On an eigenvalue λ of A
the bracket is a *filter*, the share that is learnt: 1 - (1 - ηλ)^s or 1 - e^(-λt). Training is lazy
when the model stays near this one, which it does when ‖d₀‖·‖∇²f‖/‖∇f‖² is small.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jax.typing import ArrayLike
from jaxtyping import Array, Float, PyTree

from ntk_lib.engine.activations import Activation, as_activation
from ntk_lib.engine.arguments import (
    as_array,
    as_inputs,
    as_nonnegative,
    as_number,
    as_numeric,
    as_params,
    as_positive,
    as_scalar,
    as_whole,
    check_fits,
    check_numbers,
    check_params,
    of_several_outputs,
    output_of,
)
from ntk_lib.gradient_flow import Training, gradient_descent
from ntk_lib.kernels import principal_components
from ntk_lib.wide_networks import Layer, apply, check_dimension

__all__ = [
    "descend",
    "descent_filter",
    "filter_arguments",
    "flow_filter",
    "linearise",
    "linearised_change",
    "relative_curvature",
    "relative_movement",
    "scaled",
    "train",
    "training_arguments",
]

# ---------------------------------------------------------------- the linearised model


def linearise(f: Callable[[Any, Array], Array], params: PyTree) -> Callable[[Any, Array], Array]:
    """The model ``f(params, x)`` expanded to first order in its parameters about ``params``.

    Returns a function of (parameters, x) with the shapes of ``f``, affine in the parameters. It
    costs one forward derivative and holds no Jacobian. Source: Chizat et al. 2019, section 1.

    Raises ``TypeError`` when ``f`` is not callable.
    """
    if not callable(f):
        raise TypeError(f"f needs a function of (params, x), got {type(f).__name__}")
    params = as_params(params)

    def f_lin(p: PyTree, x: Array) -> Array:
        step = jax.tree.map(jnp.subtract, p, params)
        value, change = jax.jvp(lambda q: f(q, x), (params,), (step,))
        return value + change

    return f_lin


# ---------------------------------------------------------------- what has been learnt by a time


def filter_arguments(values: ArrayLike, name: str, number: ArrayLike) -> tuple[Array, Array]:
    """Eigenvalues, those below 0 (rounding) as 0, and the number in their dtype."""
    values = as_array("values", values)
    return jnp.where(values > 0, values, 0.0), as_scalar(name, number, values.dtype)


def flow_filter(values: Float[ArrayLike, "*n"], time: ArrayLike) -> Float[Array, "*n"]:
    """1 - e^(-λt): the share of each component that gradient flow has learnt at ``time`` t ≥ 0.

    ``values`` are eigenvalues λ of Gram/N, of any shape; negative ones are taken for rounding
    errors of 0. ``time`` is one number, and may be ``math.inf``: then the filter is 1 wherever
    λ > 0. Raises ``ValueError`` or ``TypeError`` for a time that is negative or no number.
    """
    return _flow_filter(
        *filter_arguments(values, "time", as_nonnegative("time", time, infinite=True))
    )


@jax.jit
def _flow_filter(values: Array, time: Array) -> Array:
    # λ = 0 is never learnt, not even at t = ∞
    return jnp.where(values > 0, -jnp.expm1(-jnp.where(values > 0, values, 1.0) * time), 0.0)


def descent_filter(
    values: Float[ArrayLike, "*n"], *, rate: ArrayLike, steps: ArrayLike
) -> Float[Array, "*n"]:
    """1 - (1 - ηλ)^s: the same for ``steps`` s of gradient descent with ``rate`` η, t = sη.

    Grows without bound in s where ηλ > 2. Raises ``ValueError`` or ``TypeError`` for a rate or a
    number of steps that is negative or no number.
    """
    steps = as_nonnegative("steps", steps)
    values, rate = filter_arguments(values, "rate", as_nonnegative("rate", rate))
    steps, small = as_scalar("steps", steps, values.dtype), rate * values < 1
    # the first form keeps its digits where ηλ is small
    slow = -jnp.expm1(steps * jnp.log1p(-jnp.where(small, rate * values, 0.0)))
    return jnp.where(small, slow, 1 - (1 - rate * values) ** steps)


def linearised_change(
    gram: Float[ArrayLike, "n n"],
    cross: Float[ArrayLike, "m n"],
    missing: Float[ArrayLike, " n *k"],
    *,
    times: Float[ArrayLike, " t"],
    rate: float | None = None,
) -> Float[Array, "t m *k"]:
    """How far training has moved the linearised model: f_t(x) - f_0(x) at m points, at ``times``.

    ``gram`` is Θ(X, X), ``cross`` is Θ(x, X) at the m points, ``missing`` is y - f₀(X), the
    residual with its sign changed, of shape (n,) or, for k outputs, (n, k). Time is that of
    gradient flow on C = (1/2N) Σ (f - y)², and may be infinite. With a ``rate`` the result is that
    of t/rate steps of gradient descent, exactly. Directions of eigenvalue zero never move. Returns
    shape (t, m) or (t, m, k), in the widest dtype of the three.

    Raises ``ValueError`` for shapes that do not fit, a negative time, a rate that is not positive
    or a Gram that is not symmetric.
    """
    gram, cross, missing = _in_the_widest(gram=gram, cross=cross, missing=missing)
    lam, vectors = principal_components(gram)
    n = len(lam)
    if cross.ndim != 2 or cross.shape[1] != n:
        hint = of_several_outputs("cross", cross.shape)
        raise ValueError(f"cross needs shape (m, {n}), a column a point, got {cross.shape}{hint}")
    if missing.ndim not in (1, 2) or missing.shape[0] != n or not missing.size:
        raise ValueError(
            f"missing needs shape ({n},), one a point, or ({n}, k), got {missing.shape}"
        )
    times = as_numeric("times", times)
    if times.ndim != 1:
        raise ValueError(f"times needs shape (t,), got {times.shape}")
    if not isinstance(times, jax.core.Tracer) and not np.all(times >= 0):
        raise ValueError("times needs numbers that are 0 or more, got one that is not")
    with np.errstate(over="ignore"):  # too late for the dtype is at infinity
        times = jnp.asarray(times.astype(lam.dtype))
    lam = jnp.where(lam > n * jnp.finfo(lam.dtype).eps * lam[0], lam, 0.0)
    if rate is None:
        learnt = jax.vmap(functools.partial(flow_filter, lam))(times)
    else:
        rate = as_positive("rate", rate)
        check_fits("rate", rate, lam.dtype)
        by_descent = functools.partial(descent_filter, lam, rate=rate)
        learnt = jax.vmap(lambda s: by_descent(steps=s))(jnp.round(times / rate))
    weights = learnt / jnp.where(lam > 0, lam, 1.0)[None]
    if missing.ndim == 1:
        return weights * (vectors.T @ missing)[None] @ (cross @ vectors / n).T
    parts = weights[:, :, None] * (vectors.T @ missing)[None]
    return jnp.einsum("ma,tak->tmk", cross @ vectors / n, parts)


def _in_the_widest(**arrays: ArrayLike) -> list[Array]:
    """The arrays in the widest of their dtypes."""
    given = [as_array(name, array) for name, array in arrays.items()]
    dtype = max((array.dtype for array in given), key=lambda kind: kind.itemsize)
    return [array.astype(dtype) for array in given]


# ---------------------------------------------------------------- how lazy?


def _norm(tree: PyTree) -> Array:
    return jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(tree)))


def relative_movement(before: PyTree, after: PyTree) -> Float[Array, ""]:
    """‖w_t - w_0‖/‖w_0‖ over all parameters together, for two pytrees of the same structure.

    Raises ``TypeError`` for leaves that are no float arrays, ``ValueError`` when the structures or
    the shapes of the arrays differ or ``before`` is zero.
    """
    before, after = as_params(before, name="before"), as_params(after, name="after")
    shapes = [jax.tree.map(jnp.shape, tree) for tree in (before, after)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"after needs the arrays of before, {shapes[0]}, got {shapes[1]}")
    size = _norm(before)
    if not isinstance(size, jax.core.Tracer) and size == 0:
        raise ValueError("before needs parameters that are not all zero")
    return _norm(jax.tree.map(jnp.subtract, after, before)) / size


def relative_curvature(
    output: Callable[[Any], Array], params: PyTree, residual: float
) -> Float[Array, ""]:
    """κ = |residual|·‖∇²f‖/‖∇f‖² of one output at ``params``: small means lazy.

    ``output(params)`` is the scalar f, ``residual`` is d = f - y, of which only the size counts.
    ‖∇²f‖ is the largest absolute eigenvalue of the Hessian, which is held: memory (number of
    parameters)².

    Raises ``ValueError`` when ``output`` is not scalar or its gradient is zero.
    Source: Chizat et al. 2019, section 1.
    """
    if not callable(output):
        raise TypeError(f"output needs a function of params, got {type(output).__name__}")
    if not isinstance(residual, jax.core.Tracer):
        residual = as_number("residual", residual)
    w, unravel = ravel_pytree(as_params(params))
    check_fits("residual", residual, w.dtype)

    def f(w: Array) -> Array:
        return output(unravel(w))

    result = output_of("output", f, w)
    shape = getattr(result, "shape", None)
    if shape != ():
        raise ValueError(f"output needs to return one number, got shape {shape}")
    if not jnp.issubdtype(result.dtype, jnp.floating):
        raise TypeError(f"output needs to return a real float, got {result.dtype}")
    slope = jnp.sum(jax.grad(f)(w) ** 2)
    if not isinstance(slope, jax.core.Tracer) and slope == 0:
        raise ValueError("params needs a point where the gradient of output is not zero")
    curvature = jnp.abs(jnp.linalg.eigvalsh(jax.hessian(f)(w))).max()
    return abs(residual) * curvature / slope


def scaled(
    f: Callable[[Any, Array], Array], params: PyTree, alpha: float
) -> Callable[[Any, Array], Array]:
    """The model α·(f(w, x) - f(w₀, x)), zero at w₀ = ``params``.

    Trained on the cost divided by α² it becomes lazy as α grows, whatever f is.
    Source: Chizat et al. 2019, section 2.

    Raises ``TypeError`` when ``f`` is not callable, ``ValueError`` for ``alpha`` ≤ 0.
    """
    alpha = as_positive("alpha", alpha)
    if not callable(f):
        raise TypeError(f"f needs a function of (params, x), got {type(f).__name__}")
    return lambda p, x: alpha * (f(p, x) - f(params, x))


# ---------------------------------------------------------------- training a network


def _least_squares(
    x: Array, targets: Array, gain: ArrayLike, beta: ArrayLike, sigma: Activation
) -> Callable[[list[Layer]], Array]:
    def cost(p: list[Layer]) -> Array:
        f = apply(p, x, activation=sigma, gain=gain, beta=beta)[:, 0]
        return jnp.mean((f - targets) ** 2) / 2

    return cost


@functools.partial(jax.jit, static_argnames=("steps", "sigma"))
def _train(params, x, targets, rate, gain, beta, *, steps: int, sigma: Activation) -> Training:
    cost = _least_squares(x, targets, gain, beta, sigma)
    return gradient_descent(cost, params, rate=rate, steps=steps)


def descend(
    params: list[Layer],
    x: Array,
    targets: Array,
    rate: ArrayLike,
    gain: ArrayLike,
    beta: ArrayLike,
    *,
    count: ArrayLike,
    sigma: Activation,
) -> list[Layer]:
    """``count`` steps of ``train``, inside ``jit``: a traced number, so one program for all."""
    cost = _least_squares(x, targets, gain, beta, sigma)

    def step(_: Array, p: list[Layer]) -> list[Layer]:
        return gradient_descent(cost, p, rate=rate, steps=1).params

    return jax.lax.fori_loop(0, count, step, params)


def training_arguments(
    params: Sequence[Layer],
    x: ArrayLike,
    targets: ArrayLike,
    rate: float,
    activation: str | Activation,
    gain: float,
    beta: float,
) -> tuple[tuple, Activation]:
    """(params, x, targets, rate, gain, beta) as arrays of the network's dtype, and σ.

    For functions that train a network with one output; raises what ``train`` raises.
    """
    sigma = as_activation(activation)
    check_params(params)
    gain, beta = check_numbers(depth=len(params), gain=gain, beta=beta)
    x, _ = as_inputs(x)
    check_dimension(params, x)
    if len(params[-1].W) != 1:
        raise ValueError(f"params needs one output to train, got {len(params[-1].W)}")
    dtype = params[0].W.dtype
    targets = as_array("targets", targets, dtype=dtype)
    if targets.shape != (len(x),):
        raise ValueError(f"targets needs shape ({len(x)},), one a point of x, got {targets.shape}")
    given = {"rate": as_positive("rate", rate), "gain": gain, "beta": beta}
    numbers = (as_scalar(name, t, dtype) for name, t in given.items())
    return (list(params), x.astype(dtype), targets, *numbers), sigma


def train(
    params: Sequence[Layer],
    x: Float[ArrayLike, "n d"],
    targets: Float[ArrayLike, " n"],
    *,
    steps: int,
    rate: float = 1.0,
    activation: str | Activation = "relu",
    gain: float = 1.0,
    beta: float = 0.1,
) -> Training:
    """Full-batch gradient descent on C = ½·mean (f(x) − target)² for a network with one output.

    ``x`` has shape (n, d), ``targets`` (n,). ``rate`` multiplies the plain gradient; ``steps`` of
    rate η are the time t = steps·η of the gradient flow (Jacot et al. 2018, section 6.1).

    Raises ``ValueError`` for targets of another shape, ``steps`` < 0 or ``rate`` ≤ 0, and as
    ``ntk`` does.
    """
    steps = as_whole("steps", steps, least=0)
    arrays, sigma = training_arguments(params, x, targets, rate, activation, gain, beta)
    return _train(*arrays, steps=steps, sigma=sigma)
